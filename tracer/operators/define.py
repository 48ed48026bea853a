"""How an operator of our own is defined: by one function, whose signature is the operator's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import torch

from fxmeter.tracer.private import OpOverload

NAMESPACE = "fxmeter"
_LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")
_P = ParamSpec("_P")
_R = TypeVar("_R")


def operator(*, changes: Sequence[str] = ()) -> Callable[[Callable[_P, _R]], OpOverload[_P, _R]]:
    """Make a function an operator, one node in a graph; it serves every device, ``meta`` among them.

    The operator's schema is read off the function's signature, so that nobody types it again. ``changes`` names the
    arguments that it changes in place.
    """

    def register(function: Callable[_P, _R]) -> OpOverload[_P, _R]:
        name = function.__name__
        _LIBRARY.define(name + torch.library.infer_schema(function, mutates_args=changes))
        _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        overload: OpOverload[_P, _R] = getattr(getattr(torch.ops, NAMESPACE), name).default
        return overload

    return register
