"""A copy of any module on ``meta``: nothing is allocated, real weights are neither read nor changed.

Ties are kept, of modules, of parameters, and of parameters over one storage; so are training mode and what requires
gradients, which changes the ops that torch runs. Tensors that nobody registered move too, in lists, dicts and other
objects. Where one has data, what is small in it can be asked for while the copy runs.
"""

from __future__ import annotations

import copy
import types
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fxmeter.models.errors import TraceError
from fxmeter.models.names import Kwargs
from fxmeter.tracer.capture.questions import LARGEST
from fxmeter.tracer.graph.values import Args
from fxmeter.tracer.private import Cache, pytree, storage_key, uncompiled
from fxmeter.tracer.run.patches.devices import UNKNOWN, Home
from fxmeter.tracer.state.cache import tensors_of

_META = torch.device("meta")
_LEAVES = (str, bytes, int, float, complex, type(None), torch.dtype, torch.device, torch.Size, type, types.ModuleType)
_CONTAINERS = (list, tuple, set, frozenset, deque)


@dataclass(frozen=True, slots=True)
class Twin:
    """``module`` on meta, and by the id of a tensor on meta the one with data that it stands for."""

    module: nn.Module
    values: Mapping[int, Tensor] = field(default_factory=dict, repr=False)


class Shadows:
    """Tensors on meta in the place of others: each once, in a shared storage where theirs is one of ``shared``."""

    def __init__(self, shared: Mapping[int, int] | None = None) -> None:
        self.values: dict[int, Tensor] = {}
        self.made: dict[int, Tensor] = {}
        self._shared = shared or {}
        self._storages: dict[int, torch.UntypedStorage] = {}
        self._kept: list[Tensor] = []

    def of(self, tensor: Tensor, where: str) -> Tensor:
        """The shadow of ``tensor``; ``where`` names it in an error. Raises TraceError for what has no plain shape."""
        if id(tensor) not in self.made:
            _refuse(tensor, where)
            shadow = self._shadow(tensor)
            if isinstance(tensor, nn.Parameter):
                shadow = nn.Parameter(shadow, requires_grad=tensor.requires_grad)
            elif tensor.requires_grad and tensor.is_leaf:
                shadow.requires_grad_(True)
            self.made[id(tensor)] = shadow
            self._kept.append(tensor)
            if not tensor.is_meta and tensor.numel() <= LARGEST and not isinstance(tensor, nn.Parameter):
                self.values[id(shadow)] = tensor.detach()
        return self.made[id(tensor)]

    def _shadow(self, tensor: Tensor) -> Tensor:
        key = storage_key(tensor)
        if self._shared.get(key, 0) < 2:
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=_META)
        if key not in self._storages:
            self._storages[key] = torch.UntypedStorage(tensor.untyped_storage().nbytes(), device=_META)
        empty = torch.empty(0, dtype=tensor.dtype, device=_META)
        return empty.set_(self._storages[key], tensor.storage_offset(), tensor.shape, tensor.stride())


def on_meta(module: nn.Module, *, training: bool | None = None) -> Twin:
    """The twin of ``module``, in the mode that each part is in, or all of it in training or not.

    Raises TraceError, which names the part, where one cannot be copied or has no shape.
    """
    if not isinstance(module, nn.Module):
        raise TraceError(f"annotate_module prices an nn.Module, not {module!r:.80} (a {type(module).__name__})")
    if "_modules" not in vars(module):
        raise TraceError(f"{type(module).__name__} is not made yet: its __init__ calls super().__init__() first")
    module = uncompiled(module)
    _refuse_parts(module)
    tensors = dict(tensors_in(module))
    shared: dict[int, int] = {}
    for tensor, where in tensors.values():
        _refuse(tensor, where)
        shared[storage_key(tensor)] = shared.get(storage_key(tensor), 0) + 1
    shadows = Shadows(shared)
    with torch.inference_mode(False), torch.no_grad():
        memo: dict[int, Any] = {key: shadows.of(*place) for key, place in tensors.items()}
        twin = _copy(module, memo)
    for part in [*twin.modules()]:
        part._modules.update({name: uncompiled(child) for name, child in part._modules.items() if child is not None})
    _homes[twin] = _homes.get(module) or _home([tensor for tensor, _ in tensors.values()])
    return Twin(twin if training is None else twin.train(training), shadows.values)


_homes: WeakKeyDictionary[nn.Module, Home] = WeakKeyDictionary()


def home_of(module: nn.Module, arguments: Any = ()) -> Home:
    """Where the tensors are that those of a twin stand for, or else those among the ``arguments`` of a call."""
    home = _homes.get(module, UNKNOWN)
    return home if home is not UNKNOWN else _home(pytree.tree_leaves(arguments))


def _home(values: list[Any]) -> Home:
    devices = {value.device: None for value in values if isinstance(value, Tensor) and not value.is_meta}
    if not devices:
        return UNKNOWN
    if len(devices) == 1:
        return Home(next(iter(devices)))
    first, *_ = names = list(map(str, devices))
    return Home(torch.device(first), f"its tensors are on {', '.join(names)}: code that asks is told {first} of all")


def arguments_on_meta(args: Args, kwargs: Kwargs, values: dict[int, Tensor]) -> tuple[Args, Kwargs]:
    """Arguments with every tensor on meta, what holds tensors copied; ``values`` gets the tensors with data."""
    shadows = Shadows()

    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return shadows.of(value, "an input")
        if isinstance(value, Cache):
            _refuse_cache(value)
            return copy.deepcopy(value, {id(tensor): shadows.of(tensor, "the cache") for tensor in tensors_of(value)})
        if isinstance(value, PackedSequence):  # its sizes are code's to read, and stay where they are
            orders = (None if order is None else move(order) for order in value[2:])
            return PackedSequence(move(value.data), value.batch_sizes, *orders)
        if isinstance(value, Iterator):
            raise TraceError(f"an input is a {type(value).__name__}, which one call uses up: give a list")
        if isinstance(value, (nn.Module, types.MethodType)):
            return value
        memo: dict[int, Any] = {key: shadows.of(*place) for key, place in tensors_in(value)}
        try:
            return copy.deepcopy(value, memo)
        except Exception:
            if memo:
                raise
            return value  # a lock, a stream: it holds no tensor, and is shared

    with torch.inference_mode(False), torch.no_grad():
        moved = pytree.tree_map(move, (args, dict(kwargs)), is_leaf=lambda x: isinstance(x, (Cache, PackedSequence)))
    values.update(shadows.values)
    return moved


def _refuse(tensor: Tensor, where: str) -> None:
    kind = type(tensor)
    wrapper = kind.__torch_dispatch__ is not Tensor.__torch_dispatch__
    if nn.parameter.is_lazy(tensor):
        raise TraceError(f"{where} has no shape yet (a lazy module): call the module once before it is priced")
    if tensor.is_nested or tensor.layout is not torch.strided or tensor.is_quantized or wrapper:
        what = "nested" if tensor.is_nested else "quantised" if tensor.is_quantized else str(tensor.layout)[6:]
        raise TraceError(
            f"{where} is a {kind.__name__ if wrapper else what + ' tensor'}, whose ops have no rules; "
            "give the module or the input with plain dense tensors"
        )


def _refuse_cache(cache: Cache) -> None:
    """What a cache does beside keeping keys and values: another thread of copies, or arithmetic on codes."""
    if getattr(cache, "offloading", False):
        raise TraceError(
            "the cache is offloaded: it copies layers between devices while others run, which one pass does not show; "
            "give it without offloading"
        )
    for layer in getattr(cache, "layers", ()):
        if hasattr(layer, "_dequantize"):
            raise TraceError(
                f"the cache is quantised ({type(layer).__name__}), by a package whose ops have no rules; give a "
                "DynamicCache (of a language model, the format by deploy(kv=...))"
            )


_QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")
"""Where torch keeps modules whose weights are packed for a CPU's kernels."""


def _refuse_parts(module: nn.Module) -> None:
    for path, part in module.named_modules():
        if type(part).__module__.startswith(_QUANTIZED):
            raise TraceError(
                f"{path or 'the module'} is a quantised {type(part).__name__}, whose ops say no shapes; give the "
                "module that it was made from (of a language model, the format by deploy(weights=...))"
            )
        if isinstance(part, torch.jit.ScriptModule):
            raise TraceError(
                f"{path or 'the module'} is TorchScript ({type(part).__name__}), which hides its calls from Python; "
                "give the nn.Module that it was made from"
            )


def tensors_in(value: Any) -> Iterator[tuple[int, tuple[Tensor, str]]]:
    """Every tensor that attributes lead to, through modules, containers and other objects, with where it is."""
    waiting: list[tuple[Any, str]] = [(value, "")]
    seen: set[int] = set()
    while waiting:
        value, where = waiting.pop()
        kind = type(value)  # not isinstance, which asks objects that answer slowly (a config) for their class
        if issubclass(kind, _LEAVES) or id(value) in seen:
            continue
        seen.add(id(value))
        if issubclass(kind, Tensor):
            yield id(value), (value, where or "a tensor")
        elif issubclass(kind, dict):
            waiting += [(item, f"{where}.{name}" if where else str(name)) for name, item in value.items()]
        elif issubclass(kind, _CONTAINERS):
            waiting += [(item, f"{where}.{index}") for index, item in enumerate(value)]
        elif issubclass(kind, types.MethodType):
            waiting.append((value.__self__, where))
        elif not issubclass(kind, types.FunctionType) and isinstance(getattr(value, "__dict__", None), dict):
            for name, item in vars(value).items():
                registered = name in ("_parameters", "_buffers", "_modules")
                waiting.append((item, where if registered else f"{where}.{name}" if where else name))


def _copy(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """A deep copy of ``module``; what refuses to be copied, such as a lock, is shared."""
    try:
        return copy.deepcopy(module, dict(memo))
    except Exception:
        for part in module.modules():
            for value in vars(part).values():
                if not isinstance(value, dict) or value is not part._modules:
                    _share_if_single(value, memo)
    try:
        return copy.deepcopy(module, dict(memo))
    except Exception as error:
        raise TraceError(f"{type(module).__name__} cannot be copied to meta: {' '.join(str(error).split())}") from error


def _share_if_single(value: Any, memo: dict[int, Any]) -> None:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, _CONTAINERS) else None
    if items is not None:
        for item in items:
            _share_if_single(item, memo)
        return
    try:
        copy.deepcopy(value, dict(memo))
    except Exception:
        memo[id(value)] = value
