"""How a sheet is written, read and kept: documents that say whether they are whole, and the cache."""
