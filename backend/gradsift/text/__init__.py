"""Words of the pool: tokens, near-duplicates, shared text, the index and its search."""
