"""A model that the user's own code builds: ``python:package.module:factory``, run because they name it."""

from __future__ import annotations

import hashlib
import inspect
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fxmeter.models.errors import ModelError
from fxmeter.models.names import near
from fxmeter.models.source import Factory
from fxmeter.tracer.load.reading import one_line

_LIBRARIES = ("torch", "transformers", "fxmeter")


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


def fingerprint(module: nn.Module) -> str:
    """A hash of what a module built by code follows from, as far as it can be read.

    That is every parameter's name, shape and dtype, the classes of the modules, and the source of those that are not
    torch's, transformers' or fxmeter's own.
    """
    seen = hashlib.sha256()
    for path, part in module.named_modules():
        own = [(name, tuple(p.shape), str(p.dtype)) for name, p in part.named_parameters(recurse=False)]
        seen.update(repr((path, type(part).__module__, type(part).__qualname__, own)).encode())
    for cls in sorted({type(part) for part in module.modules()}, key=lambda cls: (cls.__module__, cls.__qualname__)):
        if cls.__module__.partition(".")[0] not in _LIBRARIES:
            with suppress(OSError, TypeError):  # built without a file
                seen.update(inspect.getsource(cls).encode())
    return seen.hexdigest()


def _told(error: Exception) -> str:
    """What went wrong, and on which line of the user's code."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {one_line(error)} ({last.filename}:{last.lineno})"
