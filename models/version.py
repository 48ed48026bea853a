"""The version of the package, and of what its numbers mean."""

VERSION = "0.2.0"

ANALYTIC_MODEL_VERSION = "2.0"
"""Raised whenever a figure for an unchanged model and scenario changes; CHANGELOG's *Numbers* says which and why."""


def versions() -> dict[str, str]:
    """The versions that a number depends on."""
    import platform  # these two take longer than all of `import fxmeter`
    from importlib.metadata import version

    return {
        "fxmeter": VERSION,
        "torch": version("torch"),
        "transformers": version("transformers"),
        "python": platform.python_version(),
    }
