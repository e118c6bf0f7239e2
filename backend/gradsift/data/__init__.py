"""Files -> rows -> tokens: readers, schemas, the pool, targets, the chat template."""
