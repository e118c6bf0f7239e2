"""The pool's texts: words, near-duplicates, shared text, the index and its search."""
