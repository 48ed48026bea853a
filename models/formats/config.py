"""Which matrices of a checkpoint have which format, from a config's ``quantization_config``.

A quantiser converts ``nn.Linear`` layers and the stacked matrices of experts; the output head stays as it is unless the
config says otherwise, and so do embeddings, norms, routers, biases and whatever the config's own lists name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fxmeter.models.errors import DeploymentError
from fxmeter.models.formats.parameter import Parameter
from fxmeter.models.formats.weights import StorageFormat, blocked_fp8, weight_format

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WeightFormats:
    """Formats by module. ``groups`` are (what they cover, format), the first that covers a module counts; ``kept`` are
    modules that stay as they are; ``head`` says whether the output head is converted too; ``only_experts`` that nothing
    but experts is."""

    method: str
    groups: tuple[tuple[str, StorageFormat], ...]
    kept: tuple[str, ...] = ()
    head: bool = False
    only_experts: bool = False

    @property
    def label(self) -> str:
        """Names of the formats, for a header."""
        return " and ".join(dict.fromkeys(item.name for _, item in self.groups)) or self.method

    @property
    def adds(self) -> tuple[str, ...]:
        """The work that an engine does for the formats and that is not priced, in words."""
        return tuple(dict.fromkeys(item.adds for _, item in self.groups if item.adds))

    def assigned(self, parameters: Sequence[Parameter]) -> Mapping[str, StorageFormat]:
        """Path of each of a model's parameters that has a format → the format."""
        return {each.path: found for each in parameters if (found := self.of(each)) is not None}

    def of(self, parameter: Parameter) -> StorageFormat | None:
        """The format of one parameter; None where it stays as it is."""
        role, path = parameter.role, parameter.module
        if role in ("embedding", "other") or (role == "head" and not self.head):
            return None
        if self.only_experts and role != "experts":
            return None
        if any(_names(pattern, path) for pattern in self.kept):
            return None
        for target, item in self.groups:
            if target == "Linear" or _names(target, path):
                return item
        return None


def _names(pattern: str, path: str) -> bool:
    """Whether a config's entry means the module: a regular expression after "re:", a glob, or a part of its path."""
    if pattern.startswith("re:"):
        return re.match(pattern[3:], path) is not None
    if "*" in pattern:
        return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), path) is not None
    return path == pattern or f".{pattern}." in f".{path}."


def formats_of_config(fields: Fields, *, expert_dtype: str | None = None) -> WeightFormats:
    """The formats that a ``quantization_config`` describes. Raises DeploymentError for a method nobody has priced.

    ``expert_dtype`` is a config's own word for its routed experts where they differ ("fp4" in DeepSeek-V4: blocks of 32
    with a shared exponent, beside FP8 for the rest).
    """
    method = str(fields.get("quant_method", "")).lower().replace("_", "-")
    if not method and (fields.get("load_in_4bit") or fields.get("load_in_8bit")):
        method = "bitsandbytes"
    if method not in _METHODS:
        raise DeploymentError(
            f"quantization_config has quant_method {fields.get('quant_method')!r}, which fxmeter cannot price; it "
            f"prices {', '.join(_METHODS)}. Give a weight format (--weights FORMAT, deploy(weights=...)), or bfloat16"
        )
    formats = _METHODS[method](fields)
    if expert_dtype in (None, "fp8"):
        return formats
    if expert_dtype != "fp4":
        raise DeploymentError(f"expert_dtype {expert_dtype!r} is not priced; fp4 and fp8 are")
    return replace(formats, groups=((r"re:.*\.experts(\.|$)", weight_format("mxfp4")), *formats.groups))


def _strings(*lists: Any) -> tuple[str, ...]:
    return tuple(
        str(item) for given in lists if isinstance(given, Sequence) and not isinstance(given, str) for item in given
    )


def _kept(fields: Fields) -> tuple[str, ...]:
    names = ("modules_to_not_convert", "llm_int8_skip_modules", "skip_modules", "ignore", "ignored_layers", "exclude")
    return _strings(*(fields.get(name) for name in names))


def _number(fields: Fields, name: str, default: int) -> int:
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not (0 < value < 10**6 or value == -1):
        raise DeploymentError(f"quantization_config: {name} must be a whole number, not {value!r}")
    return value


def _one(method: str, item: StorageFormat, fields: Fields, **more: Any) -> WeightFormats:
    return WeightFormats(method, (("Linear", item),), _kept(fields), **more)


def _bits(method: str, bits: int, known: Sequence[int]) -> int:
    if bits not in known:
        raise DeploymentError(
            f"quantization_config: {method} with {bits} bits is not priced; {', '.join(map(str, known))} are"
        )
    return bits


def _fp8(fields: Fields) -> WeightFormats:
    block = fields.get("weight_block_size")
    if block is not None:
        try:
            height, width = map(int, block)
        except (TypeError, ValueError):
            raise DeploymentError(f"quantization_config: weight_block_size must be two sizes, not {block!r}") from None
        return _one("fp8", blocked_fp8(height, width), fields)
    static = fields.get("activation_scheme") == "static"
    return _one("fp8", weight_format("fp8-static" if static else "fp8"), fields)


def _gptq(fields: Fields) -> WeightFormats:
    bits = _bits("gptq", _number(fields, "bits", 4), (2, 3, 4, 8))
    group = _number(fields, "group_size", 128)
    size = 10**6 if group == -1 else group
    only = _strings(*(fields.get("modules_in_block_to_quantize") or ()))
    item = weight_format(f"gptq-int{bits}-g{size}")
    groups = tuple((name, item) for name in only) or (("Linear", item),)
    return WeightFormats("gptq", groups, _kept(fields), head=bool(fields.get("lm_head")))


def _awq(fields: Fields) -> WeightFormats:
    bits = _bits("awq", _number(fields, "bits" if "bits" in fields else "w_bit", 4), (4,))
    group = _number(fields, "group_size" if "group_size" in fields else "q_group_size", 128)
    return _one("awq", weight_format(f"awq-int{bits}-g{10**6 if group == -1 else group}"), fields)


def _bitsandbytes(fields: Fields) -> WeightFormats:
    four = fields.get("load_in_4bit") or fields.get("_load_in_4bit")
    if not four and not (fields.get("load_in_8bit") or fields.get("_load_in_8bit")):
        raise DeploymentError(
            "quantization_config: bitsandbytes with neither load_in_8bit nor load_in_4bit stores nothing in another "
            "format; give one of them, or a weight format (--weights bnb-int8, nf4, bfloat16)"
        )
    if not four:
        return _one("bitsandbytes", weight_format("bnb-int8"), fields)
    return _one(
        "bitsandbytes", weight_format("nf4-double" if fields.get("bnb_4bit_use_double_quant") else "nf4"), fields
    )


def _compressed_tensors(fields: Fields) -> WeightFormats:
    groups: list[tuple[str, StorageFormat]] = []
    for scheme in (fields.get("config_groups") or {}).values():
        item = _compressed(scheme, str(scheme.get("format") or fields.get("format") or ""))
        groups += [(str(target), item) for target in scheme.get("targets") or ["Linear"]]
    if not groups:
        raise DeploymentError(
            "quantization_config: compressed-tensors without config_groups says of no weight how it is stored"
        )
    kept = _kept(fields)
    return WeightFormats("compressed-tensors", tuple(groups), kept, head="lm_head" not in kept)


def _compressed(scheme: Fields, layout: str) -> StorageFormat:
    weights = scheme.get("weights") or {}
    bits, kind = weights.get("num_bits", 16), str(weights.get("type", "int"))
    strategy, group = str(weights.get("strategy", "tensor")), weights.get("group_size") or 128
    acts = scheme.get("input_activations")
    if kind == "float" and bits == 4:
        return weight_format("nvfp4" if acts else "nvfp4a16") if group == 16 else weight_format("mxfp4")
    if kind == "float" and bits == 8:
        if strategy == "block":
            height, width = map(int, weights.get("block_structure") or (128, 128))
            return blocked_fp8(height, width, scale_bytes=2)
        if strategy == "channel":
            return weight_format("fp8-channel")
        return weight_format("fp8-static" if acts and not acts.get("dynamic") else "fp8")
    if bits == 8 and acts:
        return weight_format("int8")
    if bits == 8:
        return weight_format(f"int8-group-g{group}" if strategy == "group" else "int8-weight-only")
    if bits == 4:
        family = "int4-ordered" if weights.get("actorder") == "group" else "int4"
        family = "int4-asym" if weights.get("symmetric") is False else family
        return weight_format(f"{family}-g{group if strategy == 'group' else 10**6}")
    raise DeploymentError(
        f"quantization_config: compressed-tensors weights of {bits} bits ({kind}, {layout}) are not priced"
    )


def _hqq(fields: Fields) -> WeightFormats:
    inner = fields.get("quant_config") or {}
    weights = inner.get("weight_quant_params", inner) if isinstance(inner, Mapping) else {}
    bits = _bits("hqq", _number(weights or fields, "nbits", 4), (1, 2, 3, 4, 8))
    return _one("hqq", weight_format(f"hqq-int{bits}-g{_number(weights or fields, 'group_size', 64)}"), fields)


def _quanto(fields: Fields) -> WeightFormats:
    names = {"int8": "int8-weight-only", "float8": "fp8", "int4": "quanto-int4", "int2": "quanto-int2"}
    return _one("quanto", _chosen("quanto", str(fields.get("weights", "int8")), names), fields)


def _torchao(fields: Fields) -> WeightFormats:
    inner = fields.get("quant_type")
    name = str(inner) if isinstance(inner, str) else str(((inner or {}).get("default") or {}).get("_type", inner))
    names = {
        "int4": "torchao-int4",
        "int8_weight_only": "int8-weight-only",
        "int8weightonly": "int8-weight-only",
        "int8_dynamic": "int8",
        "int8dynamic": "int8",
        "float8": "fp8",
    }
    flat = name.lower().replace("config", "")
    key = next((key for key in names if flat.startswith(key)), flat)
    return _one("torchao", _chosen("torchao", key, names), fields)


def _chosen(method: str, key: str, names: Mapping[str, str]) -> StorageFormat:
    if key not in names:
        raise DeploymentError(f"quantization_config: {method} weights {key!r} are not priced; {', '.join(names)} are")
    return weight_format(names[key])


def _mxfp4(fields: Fields) -> WeightFormats:
    """gpt-oss: the experts alone."""
    return _one("mxfp4", weight_format("mxfp4"), fields, only_experts=True)


_METHODS: dict[str, Callable[[Fields], WeightFormats]] = {
    "fp8": _fp8,
    "fbgemm-fp8": lambda fields: _one("fbgemm-fp8", weight_format("fbgemm-fp8"), fields),
    "gptq": _gptq,
    "awq": _awq,
    "auto-round": _gptq,
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed_tensors,
    "mxfp4": _mxfp4,
    "hqq": _hqq,
    "quanto": _quanto,
    "torchao": _torchao,
    "bitnet": lambda fields: _one("bitnet", weight_format("bitnet"), fields),
    "eetq": lambda fields: _one("eetq", weight_format("int8-weight-only"), fields),
}
