"""Many points as files: documents, SQLite, CSV, Parquet."""
