"""Storage formats of weight matrices: a function (out, in) → bytes each, part by part.

A name may carry a group size: "gptq-int4-g32", "int4-g64". Without one it is 128 (64 for HQQ and nf4, 256 for
HIGGS). A matrix is ``out`` x ``in`` as ``nn.Linear`` keeps it; groups lie along ``in``.

Sources: the tensors that the formats' own writers put into a checkpoint. compressed-tensors (weight_packed int32,
weight_scale, weight_zero_point, weight_shape int64[2], weight_g_idx int32), AutoGPTQ (qweight, qzeros, scales, g_idx),
AutoAWQ (qweight, qzeros, scales), bitsandbytes (absmax, quant_map, nested_absmax, nested_quant_map; SCB), FP8 of
DeepSeek (weight_scale_inv float32 by blocks of 128 x 128), MXFP4 of the OCP specification (a shared 8-bit exponent for
32 values), NVFP4 (an FP8 scale for 16 values, two float32 scalars).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from fxmeter.models.errors import DeploymentError
from fxmeter.models.formats.grouped import GROUPED
from fxmeter.models.formats.storage import DEQUANTISES, QUANTISES, Parts, StorageFormat, over, packed
from fxmeter.models.names import near


def weight_format(name: str, further: tuple[str, ...] = ()) -> StorageFormat:
    """The format of that name; DeploymentError with the nearest names, of the ``further`` ones too, where there is
    none."""
    wanted = name.strip().lower()
    family, group = _taken_apart(wanted)
    if family in GROUPED:
        if group < 1:
            raise DeploymentError(f"weight format {name!r}: a group has at least 1 weight")
        return GROUPED[family](group)
    if wanted in _PLAIN:
        return _PLAIN[wanted]
    names = (*weight_format_names(), *further)
    raise DeploymentError(f"no weight format named {name!r}; {near(wanted, names)}there are {', '.join(names)}")


def weight_format_names() -> tuple[str, ...]:
    """The name of every format of a matrix, those that take a group size ("-g32") with their usual one left out."""
    return (*_PLAIN, *GROUPED)


def _taken_apart(name: str) -> tuple[str, int]:
    found = re.fullmatch(r"(.+)-g(\d+)", name)
    if found:
        return found[1], int(found[2])
    return name, 256 if name.startswith("higgs") else 64 if name.startswith(("hqq", "nf4", "fp4")) else 128


# Eight bits


def _scaled(scales: Callable[[int, int], int]) -> Callable[[int, int], Parts]:
    """One byte a weight, and scales."""
    return lambda rows, columns: {"weights": rows * columns, "scales": scales(rows, columns)}


def blocked_fp8(height: int, width: int, scale_bytes: int = 4) -> StorageFormat:
    """FP8 with one scale for each block of ``height`` x ``width``: of 128 x 128 in DeepSeek's, in float32; in
    bfloat16 in Qwen's files, of which no field of a config tells; one byte where it is a power of two (UE8M0)."""
    sides = "" if (height, width) == (128, 128) else f"-{height}x{width}"
    scales = {1: "-ue8m0", 2: "-bf16"}.get(scale_bytes, "")
    return StorageFormat(
        f"fp8-block{sides}{scales}",
        _scaled(lambda rows, columns: over(rows, height) * over(columns, width) * scale_bytes),
        "fp8",
        QUANTISES,
        (height, width),
    )


def with_scalars(item: StorageFormat, each: int) -> StorageFormat:
    """A format of one scale for the whole matrix, whose writer keeps its scalars in ``each`` bytes in place of 4."""

    def parts(rows: int, columns: int) -> Parts:
        return {**item.parts(rows, columns), "scales": item.parts(rows, columns)["scales"] // 4 * each}

    return replace(item, parts=parts)


_PLAIN: dict[str, StorageFormat] = {
    item.name: item
    for item in (
        StorageFormat("fp8", _scaled(lambda rows, columns: 4), "fp8", QUANTISES),
        StorageFormat("fp8-static", _scaled(lambda rows, columns: 4 + 4), "fp8", QUANTISES),
        StorageFormat("fp8-channel", _scaled(lambda rows, columns: rows * 2), "fp8", QUANTISES),
        StorageFormat("fp8-weight-only", _scaled(lambda rows, columns: rows * 2), "", DEQUANTISES),
        StorageFormat("fbgemm-fp8", _scaled(lambda rows, columns: rows * 4), "fp8", QUANTISES),
        blocked_fp8(128, 128),
        blocked_fp8(128, 128, scale_bytes=1),
        blocked_fp8(128, 128, scale_bytes=2),
        StorageFormat("int8", _scaled(lambda rows, columns: rows * 2), "int8", QUANTISES),
        StorageFormat("int8-weight-only", _scaled(lambda rows, columns: rows * 2), "", DEQUANTISES),
        StorageFormat(
            "bnb-int8", _scaled(lambda rows, columns: rows * 4), "int8", f"{QUANTISES}; outliers stay 16-bit"
        ),
        StorageFormat(
            "mxfp4",
            lambda rows, columns: {"weights": packed(rows, columns, 4), "scales": rows * over(columns, 32)},
            "",
            DEQUANTISES,
            (1, 32),
            padded=True,
        ),
        StorageFormat(
            "mxfp8",
            lambda rows, columns: {"weights": rows * columns, "scales": rows * over(columns, 32)},
            "fp8",
            QUANTISES,
            (1, 32),
        ),
        StorageFormat(
            "nvfp4",
            lambda rows, columns: {
                "weights": packed(rows, columns, 4),
                "scales": rows * over(columns, 16),
                "global scales": 4 + 4,
            },
            "fp4",
            QUANTISES,
            (1, 16),
        ),
        StorageFormat(
            "nvfp4a16",
            lambda rows, columns: {
                "weights": packed(rows, columns, 4),
                "scales": rows * over(columns, 16),
                "global scales": 4,
            },
            "",
            DEQUANTISES,
            (1, 16),
        ),
        StorageFormat(
            "bitnet", lambda rows, columns: {"weights": packed(rows, columns, 2), "scales": 2}, "int8", QUANTISES
        ),
    )
}
"""Formats without a group size. Scales of a channel are 16-bit unless the writer keeps float32."""
