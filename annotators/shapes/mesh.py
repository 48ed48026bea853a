"""Finding every piece of a stage as it is usually meant, so that its expressions are complete.

Along the stage's own axis (query length for prefill, past length for decode) every region is found, and inside each
the guards are tried out on a mesh of batches and lengths that is fine at the small end and far at the large.
"""

from __future__ import annotations

import numpy as np

from fxmeter.annotators.shapes.pieces import Piece, Pieces
from fxmeter.annotators.shapes.region import Point, SizeRegion, within
from fxmeter.annotators.symbolic import NotPolynomial

MOST_PIECES = 64
"""More pieces than this are no formula that anybody can read."""


def explore(pieces: Pieces) -> tuple[Piece, ...]:
    """Every piece that a point of the mesh falls into. Raises NotPolynomial where a point has none."""
    if pieces.stage != "vision" and not pieces.find_regions():  # before anything is priced in vain
        raise NotPolynomial(pieces.reason or "no polynomial")
    used: dict[int, Piece] = {}
    for start in _starts(pieces):
        if any(piece.region.contains(*start) for piece in used.values()):
            continue
        for piece, _ in pieces.over(_mesh(_region(pieces, start))):
            if piece is None or len(used) > MOST_PIECES:
                raise NotPolynomial(pieces.reason or f"more than {MOST_PIECES} pieces")
            used[id(piece)] = piece
    return tuple(used.values())


def _region(pieces: Pieces, start: Point) -> SizeRegion:
    piece = pieces.piece(start)
    if piece is None:
        raise NotPolynomial(pieces.reason or "no polynomial")
    return piece.region


def _starts(pieces: Pieces) -> list[Point]:
    """A first point of every region along the stage's axis, for a single sequence and for several."""
    starts: list[Point] = []
    for batch in (2, 1):
        if pieces.stage == "vision":
            starts += [(batch, x, y) for x, y in ((2, 2), (2, 1), (1, 2), (1, 1), (0, 0))]
            continue
        length = 1
        while True:
            point = (batch, length, 0) if pieces.stage == "prefill" else (batch, 1, length)
            starts.append(point)
            end = _region(pieces, point).upper[1 if pieces.stage == "prefill" else 2]
            if end is None:
                break
            length = end + 1
        if pieces.stage == "decode":
            starts.append((batch, 1, 0))
    return starts


def _mesh(region: SizeRegion) -> list[np.ndarray]:
    axes = []
    for low, high in zip(region.lower, region.upper, strict=True):
        steps = {low + d for d in (*range(12), *(2**k + j for k in range(3, 21) for j in (-1, 0, 1)))}
        axes.append(np.array(sorted(v for v in steps if high is None or v <= high), dtype=np.int64))
    mesh = [axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")]
    return [axis[within(mesh[1] + mesh[2], *region.sums)] for axis in mesh]
