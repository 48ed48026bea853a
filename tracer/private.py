"""What fxmeter does with the names of torch and transformers that no document promises.

Nothing else in fxmeter reaches for one; :mod:`fxmeter.tracer.private_names` has them all. Where a release moves one of
them the first import of this file says which, and what cannot be done without it; unsaid, a scan would be recorded as a
loop and an attention core taken apart.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, fx, nn
from transformers import PreTrainedConfig, PreTrainedModel

from fxmeter.tracer.private_names import (
    COMPILE,
    COMPILED,
    CUSTOM_OPS,
    DRAFTING,
    NAMES,
    SCAN,
    SHARDING,
    UNCOMPILED,
    Name,
    require,
)

for _name in NAMES:
    require(_name)

from torch._ops import (  # noqa: E402  after the check, which says more than an ImportError
    HigherOrderOperator,
    OpOverload,
)
from torch.utils import _pytree as pytree  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes  # noqa: E402
from transformers.cache_utils import Cache, DynamicLayer  # noqa: E402
from transformers.integrations.moe import _grouped_mm as grouped_mm  # noqa: E402
from transformers.masking_utils import sdpa_mask  # noqa: E402


def storage_key(tensor: Tensor) -> int:
    """The same number for tensors that share a storage, as long as it lives."""
    key: int = tensor.untyped_storage()._cdata
    return key


def local_part(tensor: Tensor) -> Tensor:
    """What this rank holds of a distributed tensor; any other tensor itself."""
    part: Tensor = getattr(tensor, "_local_tensor", tensor)
    return part


def kept_in_float32(model: nn.Module, *, strictly: bool) -> re.Pattern[str] | None:
    """Which of a model's names transformers keeps in float32, under bfloat16 too ("strictly") or under float16 alone;
    None where there are none. A quantiser leaves the latter as they are."""
    patterns = getattr(model, "_keep_in_fp32_modules_strict" if strictly else "_keep_in_fp32_modules", None)
    return re.compile("|".join(rf"((^|\.){pattern}($|\.))" for pattern in sorted(patterns))) if patterns else None


def is_distributed(types: tuple[type, ...]) -> bool:
    """Whether among the tensor subclasses that an op was called with is one of torch.distributed."""
    return any(kind.__module__.startswith("torch.distributed.") for kind in types)


def without_dispatch() -> AbstractContextManager[None]:
    """Inside the block no mode of this thread sees what tensors do."""
    return torch._C._DisableTorchDispatch()


def without_modes() -> AbstractContextManager[None]:
    """Inside the block ops run as if no mode were active."""
    return _disable_current_modes()


def has_global_hooks() -> bool:
    """Whether somebody's code runs around every module."""
    module = nn.modules.module
    return bool(module._global_forward_hooks or module._global_forward_pre_hooks)


def in_function_transform() -> bool:
    """Whether ``torch.func`` is at work: a gradient, or a batch by ``vmap``."""
    return torch._C._functorch.peek_interpreter_stack() is not None


@cache
def target_name(target: Callable[..., Any]) -> str:
    """What fx calls a node of this op."""
    return fx.Graph()._target_to_str(target)


def uncompiled(module: nn.Module) -> nn.Module:
    """The module that ``torch.compile`` made this of, or itself."""
    compiler = sys.modules.get(COMPILED.module)  # importing it takes seconds, and what is not imported made nothing
    while compiler is not None and isinstance(module, compiler.OptimizedModule):
        module = module._orig_mod
    return module


@contextmanager
def compiled_as_written() -> Iterator[None]:
    """Inside the block what ``torch.compile`` makes, or made before, runs as the code that it is made from.

    Where its compiler is not imported nothing was compiled, and the import alone takes seconds.
    """
    loaded = COMPILED.module in sys.modules
    with torch.compiler.set_stance("force_eager") if loaded else nullcontext(), swapped({COMPILE: _as_written}):
        yield


def _as_written(model: Any = None, **_: Any) -> Any:
    return model if model is not None else lambda function: function


def scan_step_by_step(*args: Any, additional_inputs: Any) -> Any:
    """torch's ``scan`` by the ops that it is made of: its own plain form refuses to be watched."""
    scan: Callable[..., Any] = SCAN.find()  # type: ignore[assignment]
    return scan(*args, additional_inputs=additional_inputs)


def plain_form(op: HigherOrderOperator) -> Callable[..., Any] | None:
    """The function that runs a higher-order operator by the ops that it is made of, if it has one."""
    kernel: Callable[..., Any] | None = op.py_kernels.get(torch._C.DispatchKey.CompositeExplicitAutograd)
    return kernel


@contextmanager
def swapped(names: Mapping[Name, object]) -> Iterator[None]:
    """Inside the block each of ``names``, which stand in modules, is something else."""
    before = {}
    try:
        for name, value in names.items():
            before[name] = name.find()
            setattr(import_module(name.module), name.attribute, value)
        yield
    finally:
        for name, value in before.items():
            setattr(import_module(name.module), name.attribute, value)


@cache
def is_composite(op: OpOverload) -> bool:
    """Whether an op is made of others, into which torch takes it apart unless in inference mode.

    Some have a kernel besides, which is what runs then (``silu_backward``).
    """
    has_kernel = partial(torch._C._dispatch_has_kernel_for_dispatch_key, op.name())
    return has_kernel("CompositeImplicitAutograd") and not has_kernel("CPU")


@cache
def taken_apart(name: str) -> bool:
    """Whether what a profiler calls "aten::linear" only calls other ops; also of a region that is no op of torch."""
    space, _, rest = name.partition("::")
    packet = getattr(getattr(torch.ops, space, None), rest, None) if rest.isidentifier() else None
    if packet is None:
        return True
    ops = [getattr(packet, overload) for overload in packet.overloads() if "out" not in overload]
    ops = [op for op in ops if torch._C._dispatch_has_kernel(op.name())]  # some are known to TorchScript alone
    return bool(ops) and all(map(is_composite, ops))


def primitive_body(op: OpOverload) -> Callable[..., Any] | None:
    """How torch runs a primitive by ops of aten."""
    body: Callable[..., Any] | None = getattr(op, "impl_aten", None)
    return body


def custom_op_body(op: OpOverload) -> Callable[..., Any] | None:
    """The function that ``torch.library.custom_op`` made an op of, if it was made so."""
    made = CUSTOM_OPS.find().get(op.name())  # type: ignore[attr-defined]
    return None if made is None else made._init_fn


def on_demand(name: str) -> Any:
    """An object of :data:`SHARDING` or :data:`DRAFTING`, by the first part of its attribute. Not imported before."""
    (found,) = (known for known in (*SHARDING, *DRAFTING) if known.attribute.partition(".")[0] == name)
    require(found)
    return getattr(import_module(found.module), name)


def attention_name(config: PreTrainedConfig) -> str | None:
    """The attention implementation that a config has chosen, itself alone."""
    name: str | None = config._attn_implementation_internal
    return name


def choose_attention(config: PreTrainedConfig, name: str | None) -> None:
    """Choose an attention implementation for a config, and for none of its sub-configs."""
    config._attn_implementation_internal = name


def has_attention_interface(code: ModuleType) -> bool:
    """Whether a modelling module looks its attention up by name."""
    return hasattr(code, "ALL_ATTENTION_FUNCTIONS")


def takes_no_mask(model_class: type[PreTrainedModel]) -> bool:
    """Whether a model class says that its attention can do without a mask."""
    return bool(model_class._supports_flash_attn)


def can_fuse(model_class: type[PreTrainedModel]) -> bool:
    """Whether a model class can call ``scaled_dot_product_attention``."""
    return bool(model_class._supports_sdpa)


def kernel_of(function: Callable[..., Any]) -> str:
    """The kernel that transformers' ``use_kernel_func_from_hub_with_fallback`` marked a function with, or ""."""
    code, cells = function.__code__, function.__closure__ or ()
    if not code.co_qualname.startswith("use_kernel_func_from_hub_with_fallback.<locals>"):
        return ""
    return str(dict(zip(code.co_freevars, cells, strict=True))["func_name"].cell_contents)


__all__ = [
    "UNCOMPILED",
    "Cache",
    "DynamicLayer",
    "HigherOrderOperator",
    "Name",
    "OpOverload",
    "TorchDispatchMode",
    "attention_name",
    "can_fuse",
    "choose_attention",
    "compiled_as_written",
    "custom_op_body",
    "grouped_mm",
    "has_attention_interface",
    "has_global_hooks",
    "in_function_transform",
    "is_composite",
    "is_distributed",
    "kernel_of",
    "local_part",
    "on_demand",
    "plain_form",
    "primitive_body",
    "pytree",
    "require",
    "scan_step_by_step",
    "sdpa_mask",
    "storage_key",
    "swapped",
    "taken_apart",
    "takes_no_mask",
    "target_name",
    "uncompiled",
    "without_dispatch",
    "without_modes",
]
