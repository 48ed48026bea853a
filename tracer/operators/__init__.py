"""Operators of our own, each one node in the graph: attention cores, scans, the cache's append."""
