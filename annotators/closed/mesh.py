"""Finding every piece of a stage as it is usually meant, so that its expressions are complete.

Along the stage's own axis (query length for prefill, past length for decode) every region is found, and inside each
the guards are tried out on a mesh of batches and lengths that is fine at the small end and far at the large.
"""

from __future__ import annotations

import numpy as np

from fxmeter.annotators.sheets.piece import Piece
from fxmeter.annotators.sheets.region import Point, SizeRegion, within
from fxmeter.annotators.sheets.sheet import Sheet
from fxmeter.annotators.symbolic import NotPolynomial

MOST_PIECES = 64
"""More pieces than this are no formula that anybody can read."""


def explore(sheet: Sheet) -> tuple[Piece, ...]:
    """Every piece that a point of the mesh falls into. Raises NotPolynomial or TraceError where a point has none."""
    if sheet.stage not in ("vision", "encode"):
        sheet.find_regions()  # before anything is priced in vain
    used: dict[int, Piece] = {}
    for start in _starts(sheet):
        if any(piece.region.contains(*start) for piece in used.values()):
            continue
        for piece, _ in sheet.over(_mesh(sheet.polynomials(start).region), sheet.polynomials):
            if len(used) > MOST_PIECES:
                raise NotPolynomial(f"more than {MOST_PIECES} pieces")
            used[id(piece)] = piece
    return tuple(used.values())


def _starts(sheet: Sheet) -> list[Point]:
    """A first point of every region along the stage's axis, for a single sequence and for several."""
    starts: list[Point] = []
    for batch in (2, 1):
        if sheet.stage == "vision":
            starts += [(batch, x, y) for x, y in ((2, 2), (2, 1), (1, 2), (1, 1), (0, 0))]
            continue
        if sheet.stage == "encode":
            starts.append((batch, sheet.subject.encoder_len or 0, 0))
            continue
        length = 1
        while True:
            point = (batch, length, 0) if sheet.stage == "prefill" else (batch, 1, length)
            starts.append(point)
            end = sheet.polynomials(point).region.upper[1 if sheet.stage == "prefill" else 2]
            if end is None:
                break
            length = end + 1
        if sheet.stage == "decode":
            starts.append((batch, 1, 0))
    return starts


def _mesh(region: SizeRegion) -> list[np.ndarray]:
    axes = []
    for low, high in zip(region.lower, region.upper, strict=True):
        steps = {low + d for d in (*range(12), *(2**k + j for k in range(3, 21) for j in (-1, 0, 1)))}
        axes.append(np.array(sorted(v for v in steps if high is None or v <= high), dtype=np.int64))
    mesh = [axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")]
    return [axis[within(mesh[1] + mesh[2], *region.sums)] for axis in mesh]
