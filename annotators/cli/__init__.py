"""The command line: parses, calls, prints. The only room that knows click and exit codes."""
