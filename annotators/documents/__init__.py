"""Whatever is written to disk or piped: plain data, a schema version each.

A file named after a study makes its data (``to_json``). What touches the disk: ``files`` writes one file whole or not
at all, ``sweep_files`` the folder of a sweep, its database by ``sweep_sql``.
"""
