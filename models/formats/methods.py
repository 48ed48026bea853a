"""A config's ``quantization_config`` as formats by module: one function for each ``quant_method``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fxmeter.models.errors import DeploymentError
from fxmeter.models.formats.compressed import compressed_tensors
from fxmeter.models.formats.config import WeightFormats
from fxmeter.models.formats.fields import kept_of, strings, unpriced
from fxmeter.models.formats.grouped import aqlm
from fxmeter.models.formats.kv import KvFormat, kv_format
from fxmeter.models.formats.storage import StorageFormat
from fxmeter.models.formats.weights import blocked_fp8, weight_format
from fxmeter.models.names import Fields


def formats_of_config(fields: Fields, *, expert_dtype: str | None = None) -> WeightFormats:
    """The formats that a ``quantization_config`` describes. Raises DeploymentError for a method nobody has priced.

    ``expert_dtype`` is a config's own word for its routed experts where they differ ("fp4" in DeepSeek-V4: blocks of 32
    with a shared exponent, beside FP8 for the rest); some say it here, some beside it.
    """
    expert_dtype = expert_dtype or fields.get("expert_dtype")
    fields = {**fields, "expert_dtype": expert_dtype}
    method = str(fields.get("quant_method", "")).lower().replace("_", "-")
    if not method and (fields.get("load_in_4bit") or fields.get("load_in_8bit")):
        method = "bitsandbytes"
    if method in _SAID_ELSEWHERE:
        what, near = _SAID_ELSEWHERE[method]
        raise DeploymentError(
            f"quantization_config has quant_method {fields.get('quant_method')!r}, which fxmeter cannot price: {what}. "
            f"Nearest is {near} (--weights FORMAT, deploy(weights=...)), or bfloat16"
        )
    if method not in _METHODS:
        raise DeploymentError(
            f"quantization_config has quant_method {fields.get('quant_method')!r}, which fxmeter cannot price; it "
            f"prices {', '.join(_METHODS)}. Give a weight format (--weights FORMAT, deploy(weights=...)), or bfloat16"
        )
    formats = replace(_METHODS[method](fields), kv=_cache_format(fields))
    if expert_dtype in (None, "fp8"):
        return formats
    if expert_dtype != "fp4":
        raise DeploymentError(f"expert_dtype {expert_dtype!r} is not priced; fp4 and fp8 are")
    return replace(formats, groups=((r"re:.*\.experts(\.|$)", weight_format("mxfp4")), *formats.groups))


def _cache_format(fields: Fields) -> KvFormat | None:
    """The format of the cache where the checkpoint has scales for it: an engine then keeps it so."""
    inner = fields.get("quantization") or fields
    scheme, algorithm = inner.get("kv_cache_scheme"), inner.get("kv_cache_quant_algo")
    if isinstance(scheme, Mapping):
        algorithm = f"{'fp' if scheme.get('type') == 'float' else 'int'}{scheme.get('num_bits', 8)}"
    return None if algorithm is None else kv_format(str(algorithm))


def _number(fields: Fields, name: str, default: int) -> int:
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not (0 < value < 10**6 or value == -1):
        raise DeploymentError(f"quantization_config: {name} must be a whole number, not {value!r}")
    return value


def _one(method: str, item: StorageFormat, fields: Fields, **more: Any) -> WeightFormats:
    return WeightFormats(method, (("Linear", item),), kept_of(fields), **more)


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
        return _one("fp8", blocked_fp8(height, width, _scale_bytes(fields, (height, width))), fields)
    static = fields.get("activation_scheme") == "static"
    return _one("fp8", weight_format("fp8-static" if static else "fp8"), fields)


def _scale_bytes(fields: Fields, block: tuple[int, int]) -> int:
    """``scale_fmt`` "ue8m0" says that scales are powers of two. DeepSeek-V3.1 and V3.2 keep those in float32 all the
    same; one byte each is what files have that keep their experts in FP4 (DeepSeek-V4), and those of smaller blocks
    (MXFP8)."""
    scale = fields.get("scale_fmt") or "float"
    if scale not in ("float", "ue8m0"):
        raise unpriced("fp8", f"scale_fmt {scale!r}", "float and ue8m0")
    one_byte = fields.get("expert_dtype") == "fp4" or block != (128, 128)
    return 1 if scale == "ue8m0" and one_byte else 4


def _gptq(fields: Fields) -> WeightFormats:
    layout = str(fields.get("checkpoint_format") or ("marlin" if fields.get("is_marlin_format") else "gptq"))
    if layout not in ("gptq", "gptq_v2", "marlin"):
        raise unpriced("gptq", f"checkpoint_format {layout!r}", "gptq, gptq_v2 and marlin")
    item = _gptq_format(fields, layout)
    only = strings(*(fields.get("modules_in_block_to_quantize") or ()))
    own, kept = [], [*kept_of(fields)]
    for name, more in (fields.get("dynamic") or {}).items():  # GPTQModel: "-:" leaves modules out, "+:" has its own
        sign, _, pattern = name.partition(":") if name[:2] in ("+:", "-:") else ("+", ":", name)
        if sign == "-" or more is False:
            kept.append(f"re:{pattern}")
        else:
            own.append((f"re:{pattern}", _gptq_format({**fields, **more}, layout)))
    groups = (*own, *((name, item) for name in only or ("Linear",)))
    return WeightFormats("gptq", groups, tuple(kept), head=bool(fields.get("lm_head")))


def _gptq_format(fields: Fields, layout: str) -> StorageFormat:
    known = (4,) if layout == "marlin" else (2, 3, 4, 8)
    bits = _bits("gptq", _number(fields, "bits", 4), known)
    family = "gptq-int4-marlin" if layout == "marlin" else f"gptq-int{bits}"
    return weight_format(f"{family}-g{_group(fields, 'group_size', 128)}")


def _group(fields: Fields, name: str, default: int) -> int:
    """A group size; -1 is a whole row."""
    group = _number(fields, name, default)
    return 10**6 if group == -1 else group


def _auto_round(fields: Fields) -> WeightFormats:
    if str(fields.get("data_type", "int")) != "int":
        raise unpriced("auto-round", f"data_type {fields['data_type']!r}", "whole numbers (int)")
    own, kept = [], []
    for name, more in (fields.get("extra_config") or {}).items():
        if more.get("bits", fields.get("bits", 4)) >= 16:
            kept.append(name)
        else:
            own.append((name, _gptq_format({**fields, **more}, "gptq")))
    if "awq" in str(fields.get("packing_format", "")):
        if own:
            raise unpriced("auto-round", "layers of their own in an AWQ layout", "those in a GPTQ layout")
        formats = _awq(fields)
    else:
        formats = _gptq(fields)
    return replace(formats, groups=(*own, *formats.groups), kept=(*formats.kept, *kept))


def _awq(fields: Fields) -> WeightFormats:
    _bits("awq", _number(fields, "bits" if "bits" in fields else "w_bit", 4), (4,))
    group = _group(fields, "group_size" if "group_size" in fields else "q_group_size", 128)
    version = str(fields.get("version", "gemm")).lower()
    families = {"gemm": "awq-int4", "exllama": "awq-int4", "ipex": "awq-int4", "gemv": "awq-int4-gemv"}
    if version not in families:
        raise unpriced("awq", f"version {version!r}", ", ".join(families))
    return _one("awq", weight_format(f"{families[version]}-g{group}"), fields)


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


def _modelopt(fields: Fields) -> WeightFormats:
    """NVIDIA ModelOpt: a float32 scale of the weights and one of the inputs, for NVFP4 beside one of 8 bits a group."""
    inner = fields.get("quantization") or fields
    names = {"FP8": "fp8-static", "NVFP4": "nvfp4"}
    algorithm = str(inner.get("quant_algo"))
    if algorithm not in names:
        raise unpriced("modelopt", f"quant_algo {algorithm!r}", ", ".join(names))
    return WeightFormats("modelopt", (("Linear", weight_format(names[algorithm])),), kept_of(inner), head=True)


def _quark(fields: Fields) -> WeightFormats:
    """AMD Quark: FP8 with one float32 scale, MXFP4; layers may have a scheme of their own, or none."""

    def scheme(given: Fields) -> StorageFormat:
        weight, inputs = given.get("weight") or {}, given.get("input_tensors")
        kind, per, group = (str(weight.get(name)) for name in ("dtype", "qscheme", "group_size"))
        if kind == "fp4" and (per, group) == ("per_group", "32"):
            return weight_format("mxfp4")
        if kind.startswith("fp8") and per == "per_tensor":
            return weight_format("fp8-static" if inputs and not inputs.get("is_dynamic") else "fp8")
        raise unpriced("quark", f"{kind} weights {per}", "fp8 per_tensor and fp4 per_group of 32")

    own, kept = [], [*kept_of(fields)]
    for name, given in (fields.get("layer_quant_config") or {}).items():
        if given.get("weight") is None:
            kept.append(name)
        else:
            own.append((name, scheme(given)))
    usual = scheme(fields.get("global_quant_config") or {})
    return WeightFormats("quark", (*own, ("Linear", usual)), tuple(kept), head=True)


def _aqlm(fields: Fields) -> WeightFormats:
    sizes = ("num_codebooks", 1), ("nbits_per_codebook", 16), ("out_group_size", 1), ("in_group_size", 8)
    kept = tuple(name.removesuffix(".weight") for name in kept_of(fields))
    return WeightFormats("aqlm", (("Linear", aqlm(*(_number(fields, *size) for size in sizes))),), kept)


def _higgs(fields: Fields) -> WeightFormats:
    bits = _bits("higgs", _number(fields, "bits", 4), (2, 3, 4))
    return _one("higgs", weight_format(f"higgs-int{bits}-g{_number(fields, 'group_size', 256)}"), fields)


_SAID_ELSEWHERE = {
    "spqr": ("how many outliers a matrix keeps is in the file", "int4-g16"),
    "vptq": ("its tables are laid out by a package of its own", "aqlm, which a config describes, or int4"),
    "fp-quant": (
        "its rotations are laid out by a package of its own",
        "nvfp4 or mxfp4",
    ),
    "sinq": ("its second scales are laid out by a package of its own", "hqq-int4"),
}
"""Methods of transformers whose tensors no config tells, why, and formats near them."""


def _hqq(fields: Fields) -> WeightFormats:
    inner = fields.get("quant_config") or {}
    weights = inner.get("weight_quant_params", inner) if isinstance(inner, Mapping) else {}
    bits = _bits("hqq", _number(weights or fields, "nbits", 4), (1, 2, 3, 4, 8))
    return _one("hqq", weight_format(f"hqq-int{bits}-g{_number(weights or fields, 'group_size', 64)}"), fields)


def _quanto(fields: Fields) -> WeightFormats:
    names = {"int8": "int8-weight-only", "float8": "fp8-weight-only", "int4": "quanto-int4", "int2": "quanto-int2"}
    return _one("quanto", _chosen("quanto", str(fields.get("weights", "int8")), names), fields)


def _torchao(fields: Fields) -> WeightFormats:
    inner = fields.get("quant_type")
    inner = inner.get("default", inner) if isinstance(inner, Mapping) else inner
    name = str(inner.get("_type", inner)) if isinstance(inner, Mapping) else str(inner)
    data = (inner.get("_data") if isinstance(inner, Mapping) else fields.get("quant_type_kwargs")) or {}
    flat = name.lower().replace("_", "").removesuffix("config")  # the functions of old and the classes of today
    group = data.get("group_size") if isinstance(data, Mapping) else None
    names = {**_TORCHAO, "int4weightonly": f"torchao-int4-g{group if isinstance(group, int) else 128}"}
    return _one("torchao", _chosen("torchao", flat, names), fields)


_TORCHAO = {
    "int8weightonly": "int8-weight-only",
    "int8dynamicactivationint8weight": "int8",
    "float8weightonly": "fp8-weight-only",
    "float8dynamicactivationfloat8weight": "fp8",
    "float8staticactivationfloat8weight": "fp8-static",
}


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
    "auto-round": _auto_round,
    "bitsandbytes": _bitsandbytes,
    "bitsandbytes-4bit": lambda fields: _bitsandbytes({**fields, "load_in_4bit": True}),
    "bitsandbytes-8bit": lambda fields: _bitsandbytes({**fields, "load_in_4bit": False, "load_in_8bit": True}),
    "compressed-tensors": compressed_tensors,
    "modelopt": _modelopt,
    "quark": _quark,
    "aqlm": _aqlm,
    "mxfp4": _mxfp4,
    "mxfp8": lambda fields: _one("mxfp8", weight_format("mxfp8"), fields),
    "nvfp4": lambda fields: _one("nvfp4", weight_format("nvfp4"), fields),
    "higgs": _higgs,
    "hqq": _hqq,
    "quanto": _quanto,
    "torchao": _torchao,
    "bitnet": lambda fields: _one("bitnet", weight_format("bitnet"), fields),
    "eetq": lambda fields: _one("eetq", weight_format("int8-weight-only"), fields),
}
