"""Whatever is written to disk or piped: plain data, a schema version each."""
