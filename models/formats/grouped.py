"""Formats whose groups of weights, along a row, have a scale in common; each made for a group size."""

from __future__ import annotations

from collections.abc import Callable

from fxmeter.models.formats.storage import DEQUANTISES, Parts, StorageFormat, over, packed


def _grouped(
    name: str,
    bits: int,
    *,
    scale: int = 2,
    zero: float = 0,
    per_row: int = 0,
    per_column: int = 0,
    fixed: int = 0,
    whole: tuple[int, int] = (1, 1),
) -> Callable[[int], StorageFormat]:
    """A format with a scale of ``scale`` bytes for each group, ``zero`` bytes of zero point (a fraction when packed),
    and bytes for each row, each column, and each matrix; ``whole`` as the format has it."""

    def made(group: int) -> StorageFormat:
        def parts(rows: int, columns: int) -> Parts:
            groups = rows * over(columns, group)
            stored = {
                "weights": rows * over(columns * bits, 32) * 4 if fixed else packed(rows, columns, bits),
                "scales": groups * scale,
                "zero points": over(groups * round(zero * 8), 8),
                "indices": columns * per_column,
                "rows": rows * per_row,
                "shape": fixed,
            }
            return {label: amount for label, amount in stored.items() if amount}

        return StorageFormat(f"{name}-g{group}", parts, "", DEQUANTISES, (1, group), whole)

    return made


def _gemv(group: int) -> StorageFormat:
    """AutoAWQ for products with one vector: scales and zero points of a row are filled up to whole int32, and to as
    many of those as 128 weights have groups."""

    def parts(rows: int, columns: int) -> Parts:
        words = over(columns // group, 8)
        words = over(words, max(1, 128 // group)) * max(1, 128 // group)
        return {"weights": packed(rows, columns, 4), "scales": rows * words * 8 * 2, "zero points": rows * words * 4}

    return StorageFormat(f"awq-int4-gemv-g{group}", parts, "", DEQUANTISES, (1, group), (8, 8))


def _hqq3(group: int) -> StorageFormat:
    """HQQ packs ten 3-bit values of different groups into an int32; groups are filled up to a multiple of ten."""

    def parts(rows: int, columns: int) -> Parts:
        groups = over(rows * columns, group)
        return {"weights": over(groups, 10) * group * 4, "scales": groups * 2, "zero points": groups * 2}

    return StorageFormat(f"hqq-int3-g{group}", parts, "", DEQUANTISES)


def aqlm(codebooks: int, bits: int, rows_of: int, columns_of: int) -> StorageFormat:
    """AQLM: each ``rows_of`` x ``columns_of`` weights are a sum of one entry of each of ``codebooks`` tables of
    2^bits; codes are int8 or int16, tables and a scale for each group of rows 16-bit."""

    def parts(rows: int, columns: int) -> Parts:
        codes = over(rows, rows_of) * over(columns, columns_of) * codebooks
        return {
            "weights": codes * (1 if bits <= 8 else 2),
            "tables": codebooks * 2**bits * rows_of * columns_of * 2,
            "scales": over(rows, rows_of) * 2,
        }

    return StorageFormat(f"aqlm-{codebooks}x{bits}", parts, "", DEQUANTISES, (rows_of, columns_of))


def _higgs(bits: int) -> Callable[[int], StorageFormat]:
    """HIGGS: codes packed into int16, a 16-bit scale for each group of a row, and two 16-bit tables a matrix, of
    single values and of pairs of pairs."""

    def made(group: int) -> StorageFormat:
        def parts(rows: int, columns: int) -> Parts:
            return {
                "weights": packed(rows, columns, bits),
                "scales": rows * over(columns, group) * 2,
                "tables": (2**bits + 2 * 4**bits) * 2,
            }

        adds = f"{DEQUANTISES}; activations are rotated before each product"
        return StorageFormat(f"higgs-int{bits}-g{group}", parts, "", adds, (1, group), (16, group))

    return made


def _nf4(name: str, *, double: bool) -> Callable[[int], StorageFormat]:
    """bitsandbytes: a float32 maximum for each block, or an 8-bit one and a float32 for 256 of those; a table of 16
    values (and of 256). The JSON that a file keeps beside them is no part of what an engine holds."""

    def made(group: int) -> StorageFormat:
        def parts(rows: int, columns: int) -> Parts:
            blocks = over(rows * columns, group)
            scales = {"scales": blocks, "scales of scales": over(blocks, 256) * 4, "tables": (16 + 256) * 4}
            return {
                "weights": packed(rows, columns, 4),
                **(scales if double else {"scales": blocks * 4, "tables": 16 * 4}),
            }

        return StorageFormat(name if group == 64 else f"{name}-g{group}", parts, "", DEQUANTISES)

    return made


GROUPED: dict[str, Callable[[int], StorageFormat]] = {
    # compressed-tensors: rows packed into int32, and the shape; symmetric, or with packed zero points; with an order
    "int4": _grouped("int4", 4, fixed=16),
    "int4-asym": _grouped("int4-asym", 4, zero=0.5, fixed=16),
    "int4-ordered": _grouped("int4-ordered", 4, per_column=4, fixed=16),
    "int8-group": _grouped("int8-group", 8, fixed=16),
    "int4-asym-ordered": _grouped("int4-asym-ordered", 4, zero=0.5, per_column=4, fixed=16),
    **{f"gptq-int{b}": _grouped(f"gptq-int{b}", b, zero=b / 8, per_column=4, whole=(32, 32)) for b in (2, 3, 4, 8)},
    "gptq-int4-marlin": _grouped("gptq-int4-marlin", 4, whole=(32, 32)),
    # AutoGPTQ also writes 16-bit biases, of zeros where the layer had none
    "gptq-int4-biased": _grouped("gptq-int4-biased", 4, zero=0.5, per_column=4, per_row=2, whole=(32, 32)),
    "awq-int4": _grouped("awq-int4", 4, zero=0.5, whole=(8, 1)),
    "awq-int4-gemv": _gemv,
    **{f"hqq-int{b}": _grouped(f"hqq-int{b}", b, zero=2) for b in (1, 2, 4, 8)},
    "hqq-int3": _hqq3,
    **{f"higgs-int{b}": _higgs(b) for b in (2, 3, 4)},
    "torchao-int4": _grouped("torchao-int4", 4, zero=2),
    "quanto-int4": _grouped("quanto-int4", 4, zero=2),
    "quanto-int2": _grouped("quanto-int2", 2, zero=2),
    "nf4": _nf4("nf4", double=False),
    "nf4-double": _nf4("nf4-double", double=True),
}
"""Family → the format with so many weights in a group."""
