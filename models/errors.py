"""What can go wrong, as a tree.

    FxmeterError                      one clear line for the person at the terminal; exit 1
    ├── ScenarioError                 a length, batch or option that cannot be
    ├── ModelError                    a model that cannot be found, read or built
    ├── TraceError                    the model was built but could not be run on meta
    ├── DeviceError                   a device that is not known, or whose file cannot be
    ├── DeploymentError               a storage format, a plan or a kernel that cannot be
    ├── SheetError                    a cost sheet that cannot be read, or does not cover what it is asked for
    ├── TraceFileError                a profiler's trace that cannot be read, or is of something else
    └── RuleError                     a pricing rule is duplicated or broken

Messages say what was wrong, the value received, and what to do.
"""

from __future__ import annotations


class FxmeterError(Exception):
    """Base of every error that fxmeter raises on purpose."""


class ScenarioError(FxmeterError, ValueError):
    """A length, batch or option that cannot be."""


class ModelError(FxmeterError, ValueError):
    """A model that cannot be found, read or built."""


class TraceError(FxmeterError, RuntimeError):
    """The model was built, but its forward pass could not be recorded on meta."""


class DeviceError(FxmeterError, ValueError):
    """A device that is not known, or whose file cannot be."""


class DeploymentError(FxmeterError, ValueError):
    """A storage format, a sharding plan or a kernel that cannot be."""


class SheetError(FxmeterError, ValueError):
    """A cost sheet that cannot be read, or does not cover what it is asked for."""


class TraceFileError(FxmeterError, ValueError):
    """A profiler's trace that cannot be read, or is of something else."""


class RuleError(FxmeterError, RuntimeError):
    """A pricing rule that is duplicated or broken."""
