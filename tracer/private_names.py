"""The names of torch and transformers that no document promises, each with what it is for."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

import torch
import transformers

from fxmeter.models.errors import FxmeterError


@dataclass(frozen=True, slots=True)
class Name:
    """``attribute`` (dotted, a class called where "()" says so) of ``module``, and what it is needed for."""

    module: str
    attribute: str
    purpose: str

    def __str__(self) -> str:
        return f"{self.module}.{self.attribute}"

    def find(self) -> object:
        """The object itself. Raises ImportError or AttributeError where it has moved."""
        value: object = import_module(self.module)
        for part in self.attribute.split("."):
            value = getattr(value, part.removesuffix("()"))
            if part.endswith("()") and callable(value):
                value = value()
        return value


@dataclass(frozen=True, slots=True)
class Uncompiled:
    """What torch's higher-order functions look up before they compile what they are given."""

    compile_and_call: Name
    uncompiled_flex: Name
    flex_devices: Name
    flex_operator: Name


_FLEX = "torch.nn.attention.flex_attention"
UNCOMPILED = Uncompiled(
    Name("torch._higher_order_ops.utils", "_hop_compile_and_call", "record control flow without a compiler"),
    Name(_FLEX, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", "record flex_attention without a compiler"),
    Name(_FLEX, "_validate_device", "record flex_attention on meta"),
    Name(_FLEX, "flex_attention_hop", "record flex_attention as one core"),
)
SCAN = Name("torch._higher_order_ops.scan", "generic_scan", "record a scan step by step")
CUSTOM_OPS = Name("torch._library.custom_ops", "OPDEFS", "record a custom op by what it is written in")

NAMES = (
    Name("torch._ops", "OpOverload", "tell ops apart and read their schemas"),
    Name("torch._ops", "OpOverload.decompose", "take apart ops that arrive whole in inference mode"),
    Name("torch.utils._python_dispatch", "TorchDispatchMode", "see the ops of a pass"),
    Name("torch.utils._python_dispatch", "TorchDispatchMode._should_skip_dynamo", "record an op in half the time"),
    Name("torch.utils._python_dispatch", "_disable_current_modes", "work out values without recording them"),
    Name("torch._ops", "HigherOrderOperator", "record control flow that torch keeps as an op"),
    UNCOMPILED.compile_and_call,
    UNCOMPILED.uncompiled_flex,
    UNCOMPILED.flex_devices,
    UNCOMPILED.flex_operator,
    SCAN,
    CUSTOM_OPS,
    Name("torch", "ops.prims.add.default.impl_aten", "record torch's primitives by ops that have rules"),
    Name("torch.utils._pytree", "tree_map_only", "find tensors in nested arguments"),
    Name("torch.utils._pytree", "tree_leaves", "find tensors in nested arguments"),
    Name("torch", "_C._DisableTorchDispatch", "hand a tensor on without recording it"),
    Name("torch", "_C._functorch.peek_interpreter_stack", "see that a gradient is taken by torch.func"),
    Name("torch", "UntypedStorage._cdata", "tell storages apart"),
    Name("torch.nn.modules.module", "_global_forward_hooks", "see code that runs around every module"),
    Name("torch.nn.modules.module", "_global_forward_pre_hooks", "see code that runs around every module"),
    Name("torch", "_C._dispatch_has_kernel_for_dispatch_key", "take apart ops that arrive whole in inference mode"),
    Name("torch.fx", "Graph._target_to_str", "name nodes"),
    Name("torch", "ops.aten._grouped_mm.default", "price mixtures of experts"),
    Name("torch", "ops.aten._local_scalar_dense.default", "answer what code asks about data"),
    Name("transformers.cache_utils", "DynamicLayer", "hold the cache of decoders deeper than their config says"),
    Name("transformers.cache_utils", "Cache", "tell caches from other arguments"),
    Name("transformers.masking_utils", "sdpa_mask", "give a mask to sparse attention's indexers"),
    Name("transformers.modeling_utils", "ALL_ATTENTION_FUNCTIONS", "run attention as one fused core"),
    Name("transformers", "PreTrainedConfig()._attn_implementation_internal", "choose the attention that a model runs"),
    Name("transformers", "PreTrainedModel._supports_flash_attn", "know which models need a mask"),
    Name("transformers", "PreTrainedModel._supports_sdpa", "know which models can run a fused core"),
    Name("transformers", "PreTrainedModel._from_config", "build a decoder without a head"),
    Name("transformers", "PreTrainedModel._keep_in_fp32_modules", "give parameters their checkpoint's dtype"),
    Name("transformers", "PreTrainedModel._keep_in_fp32_modules_strict", "give parameters their checkpoint's dtype"),
    Name("transformers.initialization", "no_init_weights", "build a model without filling its weights"),
    Name("transformers.initialization", "meta_device_safe_creation_ops", "build a model on meta"),
    Name("transformers.models.auto.modeling_auto", "MODEL_FOR_CAUSAL_LM_MAPPING", "find a config's model class"),
    Name("transformers.models.auto.configuration_auto", "CONFIG_MAPPING", "find a model type's config class"),
    Name("transformers.integrations.moe", "_grouped_mm", "run chosen experts as one grouped product"),
    Name(
        "transformers.integrations.hub_kernels",
        "use_kernel_func_from_hub_with_fallback",
        "record a scan over time as one operator",
    ),
)


COMPILE = Name("torch", "compile", "record what a forward compiles as it is written")
COMPILED = Name("torch._dynamo.eval_frame", "OptimizedModule", "price what a compiled module was made from")

DRAFTING = (
    Name("transformers.modeling_layers", "MtpModel._project_to_logits", "run the layers that predict further tokens"),
    Name("transformers.cache_utils", "MtpCache", "keep a cache for the layers that predict further tokens"),
)
"""Looked up where they are asked for: releases before 5.23 have other ones, or none."""

_PROPAGATION = "torch.distributed.tensor._sharding_prop"
SHARDING = (
    Name("torch.testing._internal.distributed.fake_pg", "FakeStore", "be one rank of many without the others"),
    Name(_PROPAGATION, "ShardingPropagator._propagate_tensor_meta_non_cached", "record the ops of a rank alone"),
    Name("torch.distributed.tensor", "DTensor._local_tensor", "know what a rank holds of a weight"),
    Name("torch.distributed.distributed_c10d", "_resolve_process_group", "know which ranks exchange something"),
    Name("torch.distributed._functional_collectives", "all_to_all_single", "exchange the tokens of experts"),
    Name("torch.distributed._functional_collectives", "wait_tensor", "exchange the tokens of experts"),
    Name("transformers.distributed.tensor_parallel", "apply_tensor_parallelism", "shard a model by its own plan"),
    Name("transformers.distributed.expert_parallel", "apply_expert_parallelism", "give each rank its experts"),
    Name("transformers.distributed.parallel_utils", "_get_parameter_plan", "read a sharding plan"),
    Name("transformers.distributed.parallel_utils", "replace_layer_number_by_wildcard", "write a sharding plan"),
)
"""Needed by sharded deployments alone: :func:`distributed` looks for them."""


def require(name: Name) -> None:
    """Raises FxmeterError, which says what is missing and what for, where ``name`` does not exist."""
    try:
        name.find()
    except (ImportError, AttributeError):
        package = name.module.partition(".")[0]
        version = {"torch": torch, "transformers": transformers}[package].__version__
        raise FxmeterError(
            f"{package} {version} has no {name}, without which fxmeter cannot {name.purpose}; "
            "install the versions that fxmeter names (pip install --upgrade fxmeter)"
        ) from None
