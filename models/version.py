"""The version of the package, and of what its numbers mean."""

VERSION = "0.2.0"

ANALYTIC_MODEL_VERSION = "2.0"
"""Raised whenever a figure for an unchanged model and scenario changes; CHANGELOG's *Numbers* says which and why."""
