"""Whose code modules run: transformers' and torch's is known, held to its full recordings; nobody else's is."""

from __future__ import annotations

import enum
import functools
import sys
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from fxmeter.tracer.state.tree import HOOKS, Stores, walk

PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, type)
MODULE_INTERNALS = frozenset(nn.Module().__dict__) - {"training"}
_PACKAGES = frozenset({"transformers", "torch", "fxmeter"})
_BESIDE = _PACKAGES | {"accelerate", "huggingface_hub", "kernels", "numpy"} | sys.stdlib_module_names
"""Whose functions transformers' layers may call."""


class Known:
    """Whose code modules run, and what they hold; each object is looked at once."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Any, bool]] = {}

    def is_known(self, module: nn.Module) -> bool:
        """Whether a module is torch's or transformers', with no hook, function or object on it that is not."""
        return self.runs_known(module) and not has_hooks(module)

    def runs_known(self, module: nn.Module) -> bool:
        """The same, hooks apart: they run before and after it."""
        own = vars(module)
        values = (value for name, value in own.items() if name not in MODULE_INTERNALS)
        return _package(type(module)) in _PACKAGES and "forward" not in own and all(map(self.holds, values))

    def holds(self, value: Any) -> bool:
        """Whether nothing in a value is code that somebody else wrote."""
        kind = type(value)  # not isinstance, which asks objects that answer slowly (a config) for their class
        if issubclass(kind, type):
            return _package(value) in (*_BESIDE, "builtins")
        if issubclass(kind, (*PLAIN, enum.Enum, types.BuiltinFunctionType)):
            return True
        if kind is types.FunctionType:
            return _is_ours(value)
        if id(value) not in self._seen:
            self._seen[id(value)] = value, True  # one that holds itself
            self._seen[id(value)] = value, self._is_known_object(value)
        return self._seen[id(value)][1]

    def _is_known_object(self, value: Any) -> bool:
        if isinstance(value, types.MethodType):
            return _is_ours(value.__func__) and self.holds(value.__self__)
        if isinstance(value, functools.partial):
            return all(map(self.holds, (value.func, *value.args, *value.keywords.values())))
        if _package(type(value)) not in (*_BESIDE, "builtins"):
            return False
        if isinstance(value, nn.Module):
            return all(map(self.is_known, value.modules()))
        items = [*value.values()] if isinstance(value, dict) else value if isinstance(value, (list, tuple, set)) else ()
        return all(map(self.holds, (*items, *getattr(value, "__dict__", {}).values())))


def modules_of_known_code(root: nn.Module) -> frozenset[int]:
    """The ids of those modules in ``root`` of which :meth:`Known.runs_known` is so."""
    known = Known()
    return frozenset(id(module) for _, module in walk(root) if known.runs_known(module))


def has_hooks(module: nn.Module) -> bool:
    """Whether anything runs before or after its forward."""
    return any(getattr(module, hooks) for hooks in HOOKS)


def forward_is_known(cls: type[nn.Module]) -> bool:
    """Whether nobody has put a forward of theirs on a class."""
    return _is_ours(cls.forward)


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _is_ours(function: Any) -> bool:
    """Whether a function was written in a package that transformers' layers are made of, decorators included."""
    module = getattr(function, "__globals__", {}).get("__name__", "torch")
    return str(module).partition(".")[0] in _BESIDE


_looked_at: dict[frozenset[type], Stores] = {}
"""Classes that nobody had changed, and where a change would show."""


def changed_classes(classes: frozenset[type]) -> list[type]:
    """Those that somebody has put a method of theirs on, or a function of theirs where their methods find it."""
    if classes in _looked_at and _looked_at[classes].same():
        return []
    found = [cls for cls in classes if not all(map(_runs_ours, _methods(cls)))]
    if not found:
        bases = {base for cls in classes for base in cls.__mro__[:-1]}
        code = {id(f.__globals__): f.__globals__ for base in bases for f in _methods(base)}
        _looked_at[classes] = Stores([*map(vars, bases), *code.values()])
    return found


def _methods(cls: type) -> Iterator[types.FunctionType]:
    for base in cls.__mro__[:-1]:
        for value in vars(base).values():
            function = getattr(value, "__func__", getattr(value, "fget", value))
            if isinstance(function, types.FunctionType):
                yield function


def _runs_ours(function: types.FunctionType) -> bool:
    return _is_ours(function) and _calls_ours(function)


def _calls_ours(function: types.FunctionType) -> bool:
    called = (function.__globals__.get(name) for name in function.__code__.co_names)
    return all(_is_ours(value) for value in called if isinstance(value, types.FunctionType))
