"""GGUF files as llama.cpp's quantiser writes them: one name for a file, a block type for each of its tensors.

A file's name ("q4_k_m") says the type of most matrices; values, what comes out of attention and what comes out of a
feed-forward block may have more bits, in some layers or in all. The embedding is quantised too, the output head (and an
embedding that is the head as well) is 6-bit, and norms, biases, routers and convolutions are float32. These are the
rules of llama-quantize without an importance matrix; Falcon's own are not followed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fxmeter.models.formats.config import WeightFormats
from fxmeter.models.formats.parameter import Parameter
from fxmeter.models.formats.storage import DEQUANTISES, StorageFormat, over

BLOCKS = {
    "q4_0": (32, 18),
    "q4_1": (32, 20),
    "q5_0": (32, 22),
    "q5_1": (32, 24),
    "q8_0": (32, 34),
    "q2_k": (256, 84),
    "q3_k": (256, 110),
    "q4_k": (256, 144),
    "q5_k": (256, 176),
    "q6_k": (256, 210),
    "iq4_nl": (32, 18),
    "iq4_xs": (256, 136),
    "mxfp4": (32, 17),
    "f16": (1, 2),
    "f32": (1, 4),
}
"""Weights and bytes of a block of each type (ggml)."""

_NARROWER = {"q2_k": "iq4_nl", "q3_k": "iq4_nl", "iq4_xs": "iq4_nl", "q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0"}
"""Where rows are no multiple of 256: the type that stands in."""


def _more(layer: int, layers: int) -> bool:
    """The layers that deserve more bits: the first and the last eighth, and every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


_Rule = Callable[[int, int, int], str | None]
"""(number of the layer, layers, query heads for each head of keys) → a type other than the file's, or None."""

_VALUES: Mapping[str, _Rule] = {
    "q2_k": lambda i, n, shared: "q4_k" if shared >= 4 else "q3_k",
    "q3_k_m": lambda i, n, shared: "q5_k" if i < 2 else "q4_k",
    "q3_k_l": lambda i, n, shared: "q5_k",
    "q4_k_s": lambda i, n, shared: "q5_k" if i < 4 else None,
    "q4_k_m": lambda i, n, shared: "q6_k" if _more(i, n) else None,
    "q5_k_m": lambda i, n, shared: "q6_k" if _more(i, n) else None,
    "iq4_nl": lambda i, n, shared: "q5_k" if shared >= 4 else None,
    "iq4_xs": lambda i, n, shared: "q5_k" if shared >= 4 else None,
}
_DOWN: Mapping[str, _Rule] = {
    "q2_k": lambda i, n, shared: "q3_k",
    "q3_k_m": lambda i, n, shared: "q5_k" if i < n // 16 else "q4_k",
    "q3_k_l": lambda i, n, shared: "q5_k",
    "q4_k_s": lambda i, n, shared: "q5_k" if i < n // 8 else None,
    "q4_k_m": lambda i, n, shared: "q6_k" if _more(i, n) else None,
    "q5_k_m": lambda i, n, shared: "q6_k" if _more(i, n) else None,
    "iq4_nl": lambda i, n, shared: "q5_k" if i < n // 8 else None,
    "iq4_xs": lambda i, n, shared: "q5_k" if i < n // 8 else None,
}
_OUTPUT = {"q2_k": "q3_k", "q3_k_m": "q4_k", "q3_k_l": "q5_k"}
_FUSED = {"q3_k_m": "q4_k", "q3_k_l": "q4_k", "q4_k_m": "q5_k", "q5_k_m": "q6_k"}
"""Query, key and value as one matrix."""
_OF_EIGHT = ("q2_k", "q3_k_s", "q3_k_m", "q4_k_s", "q4_k_m", "iq4_nl", "iq4_xs")
"""Files whose attention output has 5 bits where there are eight experts; keys and values then have 8."""

FILES: Mapping[str, str] = {
    **{name: name for name in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q6_k", "iq4_nl", "iq4_xs")},
    **{f"{base}_{size}": base for base in ("q3_k", "q4_k", "q5_k") for size in ("s", "m")},
    "q3_k_l": "q3_k",
    "mxfp4_moe": "q8_0",
}
"""A file's name → the type of most of its matrices; "mxfp4_moe" has its experts in MXFP4."""
ALIASES = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m"}

_PLACES = {
    "values": ("v_proj", "value", "v_lin"),
    "keys": ("k_proj", "key", "k_lin"),
    "queries": ("q_proj", "query", "q_lin"),
    "fused": ("qkv_proj", "query_key_value", "c_attn", "Wqkv"),
    "output": ("o_proj", "out_proj", "out_lin"),
    "down": ("down_proj", "fc2", "w2", "dense_4h_to_h", "output_linear"),
    "router": ("gate", "router"),
}
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}


def gguf_file(name: str) -> GgufFile | None:
    """The file of that name ("gguf-q4_k_m"), None where it is no GGUF file's."""
    wanted = name.removeprefix("gguf-")
    wanted = ALIASES.get(wanted, wanted)
    return GgufFile("gguf", (), name=wanted) if name.startswith("gguf-") and wanted in FILES else None


def gguf_names() -> tuple[str, ...]:
    """Every name, in the order of :data:`FILES`."""
    return tuple(f"gguf-{name}" for name in FILES)


@dataclass(frozen=True, slots=True)
class GgufFile(WeightFormats):
    """The formats of a file's tensors; all that a model has are in it."""

    name: str = ""

    @property
    def label(self) -> str:
        """Its name, for a header."""
        return f"gguf-{self.name}"

    @property
    def adds(self) -> tuple[str, ...]:
        """The work that an engine does for it and that is not priced."""
        return (DEQUANTISES,)

    def assigned(self, parameters: Sequence[Parameter]) -> Mapping[str, StorageFormat]:
        """Path of each parameter → its format."""
        numbers = {number for each in parameters if (number := _number(each.module)) is not None}
        layers = max(numbers, default=-1) + 1
        shared = _shared_heads(parameters)
        experts = next((each.shape[0] for each in parameters if each.role == "experts" and len(each.shape) == 3), 0)
        values = [each.module for each in parameters if _place(each.module) in ("values", "fused")]
        formats = {}
        for each in parameters:
            place = _place(each.module)
            order = (values.index(each.module), len(values)) if place == "values" else (_number(each.module), layers)
            kind = self._kind(each, place, order, shared, experts)
            formats[each.path] = _block(self._fitting(kind, each))
        return formats

    def _kind(
        self, each: Parameter, place: str | None, order: tuple[int | None, int], shared: int, experts: int
    ) -> str:
        base = FILES[self.name]
        if each.role == "other" or place == "router" or 1 in each.shape:
            return "f32"
        if each.role == "head" or each.tied:
            return base if base == "q8_0" else "q6_k"
        if self.name == "mxfp4_moe":
            return "mxfp4" if each.role == "experts" else base
        layer, layers = order
        if layer is None:
            return base
        if experts == 8 and place in ("keys", "values"):
            return "q8_0"
        if place == "values":
            kind = self._by(_VALUES, layer, layers, shared)
            return "q5_k" if layers == 80 and shared > 1 and kind in ("q3_k", "q4_k") else kind
        if place == "down":
            return self._by(_DOWN, layer, layers, shared)
        if place == "output" and experts == 8:
            return "q5_k" if self.name in _OF_EIGHT else base
        return {"output": _OUTPUT, "fused": _FUSED}.get(place or "", {}).get(self.name, base)

    def _by(self, rules: Mapping[str, _Rule], layer: int, layers: int, shared: int) -> str:
        rule = rules.get(self.name)
        return (rule and rule(layer, layers, shared)) or FILES[self.name]

    def _fitting(self, kind: str, each: Parameter) -> str:
        """A row holds whole blocks, or another type stands in."""
        columns = each.columns
        if columns % BLOCKS[kind][0]:
            kind = _NARROWER.get(kind, kind)
        return "f16" if columns % BLOCKS[kind][0] else kind


def _block(kind: str) -> StorageFormat:
    weights, nbytes = BLOCKS[kind]
    return StorageFormat(f"gguf-{kind}", _Blocks(weights, nbytes), "", DEQUANTISES, (1, weights))


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Bytes of a matrix in whole blocks."""

    weights: int
    nbytes: int

    def __call__(self, rows: int, columns: int) -> Mapping[str, int]:
        return {"blocks": over(rows * columns, self.weights) * self.nbytes}


def _place(module: str) -> str | None:
    """What a matrix is for, by the usual names of its module."""
    *around, name = module.split(".")
    if name in ("c_proj", "dense"):
        return "output" if around and "att" in around[-1] else "down" if name == "c_proj" else None
    return _PLACE_OF.get(name)


def _number(module: str) -> int | None:
    """The number of the layer that a module is in."""
    number = re.search(r"\.(\d+)\.", f".{module}.")
    return int(number[1]) if number else None


def _shared_heads(parameters: Iterable[Parameter]) -> int:
    """Query heads for each head of keys and values, by the rows of the first projections."""
    rows: dict[str, int] = {}
    for each in parameters:
        place = _place(each.module)
        if place in ("queries", "keys") and each.role == "linear":
            rows.setdefault(place, each.shape[0])
    return rows["queries"] // rows["keys"] if len(rows) == 2 and rows["keys"] else 1
