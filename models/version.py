"""The version of what the numbers mean, apart from the version of the package."""

ANALYTIC_MODEL_VERSION = "1.1"
"""Raised whenever a figure for an unchanged model and scenario changes; CHANGELOG's *Numbers* says which and why."""
