"""Storage formats of weight matrices: a function (out, in) → bytes each, part by part.

A name may carry a group size: "gptq-int4-g32", "int4-g64". Without one it is 128 (64 for HQQ and nf4). A matrix is
``out`` x ``in`` as ``nn.Linear`` keeps it; groups lie along ``in``.

Sources: the tensors that the formats' own writers put into a checkpoint. compressed-tensors (weight_packed int32,
weight_scale, weight_zero_point, weight_shape int64[2], weight_g_idx int32), AutoGPTQ (qweight, qzeros, scales, g_idx),
AutoAWQ (qweight, qzeros, scales), bitsandbytes (absmax, quant_map, nested_absmax, nested_quant_map; SCB), FP8 of
DeepSeek (weight_scale_inv float32 by blocks of 128 x 128), MXFP4 of the OCP specification (a shared 8-bit exponent for
32 values), NVFP4 (an FP8 scale for 16 values, two float32 scalars).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fxmeter.models.errors import DeploymentError
from fxmeter.models.names import near

Parts = Mapping[str, int]
"""What a matrix is stored as: part ("weights", "scales", …) → bytes."""

DEQUANTISES = "weights are widened to 16 bits inside of the product"
QUANTISES = "activations are quantised before each product"


@dataclass(frozen=True, slots=True)
class StorageFormat:
    """One format. ``computes`` is the dtype that multiplies (a device file's name for it; empty: the model's own);
    ``adds`` is the work beside the products that an engine does for it, in words, and that is not priced. The
    weights of a ``block`` (rows, columns) have a scale in common."""

    name: str
    parts: Callable[[int, int], Parts] = field(repr=False)
    computes: str = ""
    adds: str = ""
    block: tuple[int, int] = (1, 1)

    def nbytes(self, rows: int, columns: int) -> int:
        """Bytes of a matrix [rows = out, columns = in]."""
        return sum(self.parts(rows, columns).values())


def weight_format(name: str, further: tuple[str, ...] = ()) -> StorageFormat:
    """The format of that name; DeploymentError with the nearest names, of the ``further`` ones too, where there is
    none."""
    wanted = name.strip().lower()
    family, group = _taken_apart(wanted)
    if family in _GROUPED:
        if group < 1:
            raise DeploymentError(f"weight format {name!r}: a group has at least 1 weight")
        return _GROUPED[family](group)
    if wanted in _PLAIN:
        return _PLAIN[wanted]
    names = (*weight_format_names(), *further)
    raise DeploymentError(f"no weight format named {name!r}; {near(wanted, names)}there are {', '.join(names)}")


def weight_format_names() -> tuple[str, ...]:
    """The name of every format of a matrix, those that take a group size ("-g32") with their usual one left out."""
    return (*_PLAIN, *_GROUPED)


def _taken_apart(name: str) -> tuple[str, int]:
    found = re.fullmatch(r"(.+)-g(\d+)", name)
    if found:
        return found[1], int(found[2])
    return name, 64 if name.startswith(("hqq", "nf4", "fp4")) else 128


def _over(amount: int, divisor: int) -> int:
    return -(-amount // divisor)


def _packed(rows: int, columns: int, bits: int) -> int:
    """Values of ``bits`` bits packed without gaps."""
    return _over(rows * columns * bits, 8)


# Eight bits


def _scaled(scales: Callable[[int, int], int]) -> Callable[[int, int], Parts]:
    """One byte a weight, and scales."""
    return lambda rows, columns: {"weights": rows * columns, "scales": scales(rows, columns)}


def blocked_fp8(height: int, width: int, scale_bytes: int = 4) -> StorageFormat:
    """FP8 with one scale for each block of ``height`` x ``width``; DeepSeek's has 128 x 128 and float32."""
    return StorageFormat(
        "fp8-block" if (height, width) == (128, 128) else f"fp8-block-{height}x{width}",
        _scaled(lambda rows, columns: _over(rows, height) * _over(columns, width) * scale_bytes),
        "fp8",
        QUANTISES,
        (height, width),
    )


_PLAIN: dict[str, StorageFormat] = {
    item.name: item
    for item in (
        StorageFormat("fp8", _scaled(lambda rows, columns: 4), "fp8", QUANTISES),
        StorageFormat("fp8-static", _scaled(lambda rows, columns: 4 + 4), "fp8", QUANTISES),
        StorageFormat("fp8-channel", _scaled(lambda rows, columns: rows * 2), "fp8", QUANTISES),
        StorageFormat("fbgemm-fp8", _scaled(lambda rows, columns: rows * 4), "fp8", QUANTISES),
        blocked_fp8(128, 128),
        StorageFormat("int8", _scaled(lambda rows, columns: rows * 2), "int8", QUANTISES),
        StorageFormat("int8-weight-only", _scaled(lambda rows, columns: rows * 2), "", DEQUANTISES),
        StorageFormat(
            "bnb-int8", _scaled(lambda rows, columns: rows * 4), "int8", f"{QUANTISES}; outliers stay 16-bit"
        ),
        StorageFormat(
            "mxfp4",
            lambda rows, columns: {"weights": _packed(rows, columns, 4), "scales": rows * _over(columns, 32)},
            "",
            DEQUANTISES,
            (1, 32),
        ),
        StorageFormat(
            "mxfp8",
            lambda rows, columns: {"weights": rows * columns, "scales": rows * _over(columns, 32)},
            "fp8",
            QUANTISES,
            (1, 32),
        ),
        StorageFormat(
            "nvfp4",
            lambda rows, columns: {
                "weights": _packed(rows, columns, 4),
                "scales": rows * _over(columns, 16),
                "global scales": 4 + 4,
            },
            "fp4",
            QUANTISES,
            (1, 16),
        ),
        StorageFormat(
            "nvfp4a16",
            lambda rows, columns: {
                "weights": _packed(rows, columns, 4),
                "scales": rows * _over(columns, 16),
                "global scales": 4,
            },
            "",
            DEQUANTISES,
            (1, 16),
        ),
        StorageFormat(
            "bitnet", lambda rows, columns: {"weights": _packed(rows, columns, 2), "scales": 2}, "int8", QUANTISES
        ),
    )
}
"""Formats without a group size. Scales of a channel are 16-bit unless the writer keeps float32."""


# Groups along a row


def _grouped(
    name: str, bits: int, *, scale: int = 2, zero: float = 0, per_row: int = 0, per_column: int = 0, fixed: int = 0
) -> Callable[[int], StorageFormat]:
    """A format with a scale of ``scale`` bytes for each group, ``zero`` bytes of zero point (a fraction when packed),
    and bytes for each row, each column, and each matrix."""

    def made(group: int) -> StorageFormat:
        def parts(rows: int, columns: int) -> Parts:
            groups = rows * _over(columns, group)
            stored = {
                "weights": rows * _over(columns * bits, 32) * 4 if fixed else _packed(rows, columns, bits),
                "scales": groups * scale,
                "zero points": _over(groups * round(zero * 8), 8),
                "indices": columns * per_column,
                "rows": rows * per_row,
                "shape": fixed,
            }
            return {label: amount for label, amount in stored.items() if amount}

        return StorageFormat(f"{name}-g{group}", parts, "", DEQUANTISES, (1, group))

    return made


def _nf4(name: str, *, double: bool) -> Callable[[int], StorageFormat]:
    """bitsandbytes: a float32 maximum for each block, or an 8-bit one and a float32 for 256 of those; a table of 16
    values (and of 256). The JSON that a file keeps beside them is no part of what an engine holds."""

    def made(group: int) -> StorageFormat:
        def parts(rows: int, columns: int) -> Parts:
            blocks = _over(rows * columns, group)
            scales = {"scales": blocks, "scales of scales": _over(blocks, 256) * 4, "tables": (16 + 256) * 4}
            return {
                "weights": _packed(rows, columns, 4),
                **(scales if double else {"scales": blocks * 4, "tables": 16 * 4}),
            }

        return StorageFormat(name if group == 64 else f"{name}-g{group}", parts, "", DEQUANTISES)

    return made


_GROUPED: dict[str, Callable[[int], StorageFormat]] = {
    # compressed-tensors: rows packed into int32, and the shape; symmetric, or with packed zero points; with an order
    "int4": _grouped("int4", 4, fixed=16),
    "int4-asym": _grouped("int4-asym", 4, zero=0.5, fixed=16),
    "int4-ordered": _grouped("int4-ordered", 4, per_column=4, fixed=16),
    "int8-group": _grouped("int8-group", 8, fixed=16),
    **{f"gptq-int{b}": _grouped(f"gptq-int{b}", b, zero=b / 8, per_column=4) for b in (2, 3, 4, 8)},
    # AutoGPTQ also writes 16-bit biases, of zeros where the layer had none
    "gptq-int4-biased": _grouped("gptq-int4-biased", 4, zero=0.5, per_column=4, per_row=2),
    "awq-int4": _grouped("awq-int4", 4, zero=0.5),
    **{f"hqq-int{b}": _grouped(f"hqq-int{b}", b, zero=2) for b in (1, 2, 3, 4, 8)},
    "torchao-int4": _grouped("torchao-int4", 4, zero=2),
    "quanto-int4": _grouped("quanto-int4", 4, zero=2),
    "quanto-int2": _grouped("quanto-int2", 2, zero=2),
    "nf4": _nf4("nf4", double=False),
    "nf4-double": _nf4("nf4-double", double=True),
}
