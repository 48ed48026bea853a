"""A model that the user's own code builds: ``python:package.module:factory``, run because they name it."""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fxmeter.models.errors import ModelError
from fxmeter.models.names import near
from fxmeter.models.source import Factory
from fxmeter.tracer.load.reading import one_line


def built_by(factory: Factory) -> tuple[nn.Module, tuple[Any, ...] | None]:
    """The module that a factory returns, on ``meta`` and in inference mode, and the example inputs beside it.

    A factory takes no arguments and returns a module, or a tuple of a module and the inputs of its ``forward``. It runs
    with ``meta`` as the default device, so that a large model takes no memory. Modules are looked up in the current
    folder first, as ``python -m`` does.

    Returns:
        The module, and the example inputs; None where the factory gives none, and the module is a language model.

    Raises:
        ModelError: no such module or factory, one that fails, or one that returns something else; one line says where.
    """
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    try:
        found = import_module(factory.module)
    except Exception as error:
        raise ModelError(f"{factory}: {factory.module} cannot be imported: {_told(error)}") from None
    make = getattr(found, factory.name, None)
    if not callable(make):
        names = [name for name, value in vars(found).items() if callable(value) and not name.startswith("_")]
        raise ModelError(
            f"{factory}: {factory.module} has no function {factory.name}; {near(factory.name, names)}".rstrip("; ")
        )
    try:
        with torch.device("meta"):
            given = make()
    except Exception as error:
        raise ModelError(f"{factory}: the factory failed: {_told(error)}") from None
    module, *inputs = given if isinstance(given, tuple) else (given,)
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"{factory}: the factory returned {type(module).__name__}; return a torch module, or a tuple of one "
            "and the inputs of its forward"
        )
    setattr(module, "name_or_path", str(factory))  # noqa: B010  any module takes it
    return module.to("meta").eval(), tuple(inputs) if isinstance(given, tuple) else None


def _told(error: Exception) -> str:
    """What went wrong, and on which line of the user's code."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {one_line(error)} ({last.filename}:{last.lineno})"
