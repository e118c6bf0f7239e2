"""What lies on disk: the manifest, shards, metrics, the pool, and what checks them."""
