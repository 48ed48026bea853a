"""One rank of a model that is sharded over devices, on meta. Nothing here is imported before a deployment shards."""
