"""Code that asks for a device, names one, or forgets to: what it is told, and all tensors on one."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
import transformers
from torch import Tensor, UntypedStorage, nn
from torch.overrides import TorchFunctionMode

from fxmeter.models.names import Kwargs
from fxmeter.tracer.capture.known import forward_is_known, has_hooks, modules_of_known_code
from fxmeter.tracer.graph.values import Args, Function
from fxmeter.tracer.state.tree import derived, walk

_META = torch.device("meta")
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


@dataclass(frozen=True, slots=True)
class Home:
    """Where the tensors of a pass would be, were they not on meta.

    ``said`` is what has to be taken for granted where code may branch on it: that nothing says where they are, or that
    they are on several devices.
    """

    device: torch.device
    said: str | None = None


UNKNOWN = Home(torch.device("cpu"), "its tensors are on meta: code that asks where they are is told cpu")


@contextmanager
def devices_answered(model: nn.Module, home: Home) -> Iterator[dict[str, None]]:
    """Inside the block code of ``model`` that is not transformers' or torch's finds its tensors at ``home``; what had
    to be taken for granted is collected."""
    seen = dict[str, None]()
    if not derived(model, _has_foreign_code) and all(map(forward_is_known, {type(part) for _, part in walk(model)})):
        yield seen
        return
    address = UntypedStorage.data_ptr

    def data_ptr(self: UntypedStorage) -> int:
        if self.device.type == "meta" and not _is_ours(sys._getframe(1).f_code):
            raise RuntimeError(_NO_ADDRESS)
        return address(self)

    UntypedStorage.data_ptr = data_ptr  # type: ignore[method-assign, assignment]
    try:
        with _AtHome(home, seen):
            yield seen
    finally:
        del UntypedStorage.data_ptr  # it is its base class's


def _has_foreign_code(model: nn.Module) -> bool:
    code = derived(model, modules_of_known_code)
    return any(id(module) not in code or has_hooks(module) for _, module in walk(model))


_NO_ADDRESS = "its code asks for the address of a tensor (data_ptr), which has none without data"
_HERE = tuple(str(Path(f).parent) + os.sep for f in (torch.__file__, transformers.__file__, Path(__file__).parents[1]))
"""Where code lies that is held to its recordings on meta."""
_IS_ON = {
    getattr(Tensor, f"is_{kind}").__get__: kind
    for kind in ("cpu", "cuda", "ipu", "maia", "meta", "mps", "mtia", "vulkan", "xla", "xpu")
    if hasattr(Tensor, f"is_{kind}")
}
_DEVICE = Tensor.device.__get__
_CARRY_DATA = frozenset({torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor})
"""Functions whose result has values that code may ask for: made where they are known."""
_ON_THE_HOST = frozenset({torch.tensor_split, Tensor.tensor_split})
"""Functions whose second argument, where it is a tensor, is to be on the CPU: they read its values."""
_TO_NUMPY = frozenset(getattr(Tensor, name) for name in ("numpy", "__array__"))
_NAMES = re.compile(r"(cpu|cuda|meta|mps|mtia|npu|hpu|xla|xpu)(:\d+)?$")


class _AtHome(TorchFunctionMode):
    """Code that asks a tensor on meta where it is gets ``home``; what it makes or moves there is on meta.

    A device that the code names itself, where ``home`` is the CPU, stays what it names: such tensors have values.
    """

    def __init__(self, home: Home, seen: dict[str, None]) -> None:
        super().__init__()
        self._home, self._device, self._seen = home, home.device, seen

    def __torch_function__(self, func: Function, types: object, args: Args = (), kwargs: Kwargs | None = None) -> Any:
        kwargs = kwargs or {}
        if func in _ASKS:
            if args[0].is_meta and not _is_ours((asking := _caller(sys._getframe(1))).f_code):
                return self._answer(func, args, kwargs, asking)
        elif func in _ON_THE_HOST and isinstance(args[1], Tensor):
            args = (args[0], args[1].tolist(), *args[2:])
        elif func in _TRANSFERS:
            return self._moved(func, *args, **kwargs)
        elif func in _TO_NUMPY and self._device.type == "cpu" and args[0].is_meta:
            with suppress(NotImplementedError):  # no data: making the array says so
                args = (args[0].cpu(), *args[1:])  # what values there are come with the copy
        elif kwargs.get("device") is self._device and func not in _CARRY_DATA:
            kwargs = {name: value for name, value in kwargs.items() if name != "generator"} | {"device": _META}
        elif kwargs.get("device") is not None and self._device.type != "cpu" and self._is_home(kwargs["device"]):
            kwargs = kwargs | {"device": _META}
        return func(*args, **kwargs)

    def _answer(self, func: Function, args: Args, kwargs: Kwargs, asking: FrameType) -> Any:
        if func is Tensor.type and (len(args) > 1 or kwargs):
            return func(*args, **kwargs)
        if func is Tensor.data_ptr:
            raise RuntimeError(_NO_ADDRESS)
        if self._home.said is not None and (func != _DEVICE or _names_a_device(asking.f_code)):
            self._seen[self._home.said] = None
        if func in _IS_ON:
            return self._device.type == _IS_ON[func]
        if func is Tensor.get_device:
            return -1 if self._device.type == "cpu" else self._device.index or 0
        if func is Tensor.type:
            return func(args[0]).replace("meta.", "" if self._device.type == "cpu" else f"{self._device.type}.")
        return self._device

    def _moved(self, func: Function, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        """A tensor where it is wanted; what is at home already, or goes there, is on meta."""
        named = _DESTINATION[func](args, kwargs)
        if isinstance(named, Tensor):
            beside, named = named, self._device if named.is_meta else named.device
            func, args = Tensor.to, (named, beside.dtype, *args[1:])
            kwargs.pop("other", None)
        if named is None or not self._is_home(named):
            return func(tensor, *args, **kwargs)
        where = tensor.device if self._device.type == "cpu" else _META
        if func in _MOVES:
            return tensor if tensor.device == where else tensor.to(where)
        if "device" in kwargs:
            kwargs["device"] = where
        else:
            args = (where, *args[1:])
        return func(tensor, *args, **kwargs)

    def _is_home(self, device: Any) -> bool:
        try:
            device = torch.device(device)
        except (RuntimeError, TypeError):
            return False
        return device.type == self._device.type and device.index in (None, self._device.index or 0)


_ASKS = frozenset({*_IS_ON, _DEVICE, Tensor.get_device, Tensor.data_ptr, Tensor.type})


def _place(args: Args, kwargs: Kwargs) -> Any:
    """Where ``Tensor.to`` sends a tensor: a device, or the tensor beside which it goes."""
    first = args[0] if args else kwargs.get("device", kwargs.get("other"))
    return None if isinstance(first, torch.dtype) else first


_DESTINATION = {
    Tensor.to: _place,
    Tensor.type_as: _place,
    Tensor.cpu: lambda args, kwargs: "cpu",
    Tensor.cuda: lambda args, kwargs: args[0] if args else kwargs.get("device") or "cuda",
}
_TRANSFERS = frozenset(_DESTINATION)


def _caller(frame: FrameType) -> FrameType:
    """The code that asked, behind other modes."""
    while frame.f_code.co_name == "__torch_function__" and frame.f_back is not None:
        frame = frame.f_back
    return frame


@lru_cache(4096)
def _is_ours(code: CodeType) -> bool:
    return code.co_filename.startswith(_HERE)


@lru_cache(4096)
def _names_a_device(code: CodeType) -> bool:
    """Whether a function has the name of a device in it, with which it may compare."""
    parts = [(const if isinstance(const, tuple | frozenset) else (const,)) for const in code.co_consts]
    return any(isinstance(text, str) and _NAMES.match(text) for text in chain(*parts))
