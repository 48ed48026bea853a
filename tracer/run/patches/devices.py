"""Running code that names a device, or forgets to, all on one."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fxmeter.models.names import Kwargs
from fxmeter.tracer.graph.values import Args, Function

_ACCELERATOR = re.compile(r"(cuda|mps|xpu|hpu|npu|mtia)(:\d+)?$")
_MOVES = frozenset({Tensor.cuda, Tensor.cpu})
_MAY_NAME = frozenset({Tensor.to, torch.device})
"""Functions that take a device's name, without a keyword."""


class OneDevice(TorchFunctionMode):
    """Inside the block tensors are made on ``device``, whichever the code names, and stay there.

    It slows every call of torch, so it is for code that failed without.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __enter__(self) -> OneDevice:
        self._default = torch.device(self._device)
        self._default.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self._default.__exit__(*exc)

    def __torch_function__(self, func: Function, types: object, args: Args = (), kwargs: Kwargs | None = None) -> Any:
        kwargs = kwargs or {}
        if func in _MOVES:
            return args[0]
        if func in _MAY_NAME:
            args = tuple(map(self._own, args))
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": self._device}
        return func(*args, **kwargs)

    def _own(self, value: Any) -> Any:
        """``value``, or the device where it names another."""
        if isinstance(value, torch.device) or (isinstance(value, str) and _ACCELERATOR.match(value)):
            return self._device
        return value
