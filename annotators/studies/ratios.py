"""Sanity ratios of a sweep: what must hold between its numbers whatever the model, and where it does not apply.

    flash constant    flash decode activations do not grow with the context
    flash below       flash decode activations are below those of the prefill of the same context
    eager above       eager makes and moves at least as much as flash, and computes at least as many products
    decode below      a decode step computes at most a tenth of the prefill of its context, from 64 tokens on
    KV monotone       the cache does not shrink as the context or the batch grows, nor from prefill to decode

A ratio that the numbers themselves rule out is skipped, and said to be: where a decode step reads more activations the
longer the context is, the model's own code makes tensors of the context's length (latent attention as transformers
runs it expands its whole cache), and they count. A mistake in activations alone does not show in what is read.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fxmeter.annotators.studies.axes import SweepPoint
from fxmeter.annotators.studies.sweep import Key, StageFigures, Sweep

LEAST_PROMPT = 64
TIMES = 10

Row = tuple[SweepPoint, dict[Key, StageFigures]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a ratio came out: over ``compared`` pairs, ``broken`` at the first that breaks it, or ``skipped`` for a
    reason that the numbers give."""

    name: str
    compared: int
    broken: str | None = None
    skipped: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison: whether it holds, in words what was found."""

    holds: bool
    text: str


def check(sweep: Sweep) -> tuple[Verdict, ...]:
    """Every ratio, over all points."""
    rows: list[Row] = [
        (point, {(f.stage, f.attention): f for f in found})
        for point, found in zip(sweep.points, sweep.figures, strict=True)
    ]
    return (
        _flash_constant(rows),
        _verdict("flash decode activations below prefill's", _flash_below(rows)),
        _verdict("eager at least flash", _eager_above(rows)),
        _verdict("a decode step far below prefill", _decode_below(rows)),
        _verdict("KV monotone", _kv_monotone(rows)),
    )


def _verdict(name: str, findings: Iterable[Finding], skipped: str | None = None) -> Verdict:
    compared = 0
    for finding in findings:
        compared += 1
        if not finding.holds:
            return Verdict(name, compared, broken=finding.text)
    if not compared and skipped is None:
        skipped = "no two points to compare"
    return Verdict(name, compared, skipped=skipped)


def _flash_constant(rows: Sequence[Row]) -> Verdict:
    name = "flash decode activations constant in the context"
    growing: list[str] = []

    def findings() -> Iterator[Finding]:
        for before, after in _neighbours(rows, ("decode", "flash"), lambda f: (f.batch, f.steps), _context):
            less, more = before[1].cost, after[1].cost
            tokens = _context(after[1]) - _context(before[1])
            read = (_read_by_last(after[1]) - _read_by_last(before[1])) // (tokens * after[1].batch)
            if read > 0:
                growing.append(f"a step reads {read:,} B of activations more per cached token: the model's own code")
                continue
            text = f"{after[0]}: {more.activation_bytes:,} B, but {less.activation_bytes:,} B at {before[0]}"
            yield Finding(more.activation_bytes <= less.activation_bytes, text)

    found = _verdict(name, findings())
    if growing and not found.broken and not found.compared:
        return Verdict(name, 0, skipped=growing[0])
    return found


def _context(figures: StageFigures) -> int:
    return (figures.past_len or 0) + (figures.query_len or 0)


def _read_by_last(figures: StageFigures) -> Any:
    return figures.cost.activation_read_bytes // figures.steps


def _flash_below(rows: Sequence[Row]) -> Iterator[Finding]:
    for point, found in rows:
        decode, prefill = found.get(("decode", "flash")), found.get(("prefill", "flash"))
        if decode and prefill and _comparable(decode, prefill, 2):
            less, more = decode.cost.activation_bytes, prefill.cost.activation_bytes
            yield Finding(less < more, f"{point}: decode makes {less:,} B, prefill {more:,} B")


def _last_context(figures: StageFigures) -> int:
    return (figures.past_len or 0) + figures.steps


def _comparable(decode: StageFigures, prefill: StageFigures, least: int) -> bool:
    """Whether the last step's context is not far beyond the prompt, of at least ``least`` tokens."""
    prompt = prefill.query_len or 0
    return prompt >= least and _last_context(decode) <= 2 * prompt


def _eager_above(rows: Sequence[Row]) -> Iterator[Finding]:
    for point, found in rows:
        for (stage, attention), flash in found.items():
            eager = found.get((stage, "eager"))
            if attention == "flash" and eager:
                for field in ("matmul_flops", "activation_bytes", "io_bytes"):
                    less, more = getattr(flash.cost, field), getattr(eager.cost, field)
                    text = f"{point}: {stage} {field} is {more:,} with eager, {less:,} with flash"
                    yield Finding(more >= less, text)


def _decode_below(rows: Sequence[Row]) -> Iterator[Finding]:
    for point, found in rows:
        for (stage, attention), decode in found.items():
            prefill = found.get(("prefill", attention))
            if stage == "decode" and prefill and _comparable(decode, prefill, LEAST_PROMPT):
                steps, prompt = decode.cost.flops, prefill.cost.flops
                text = f"{point}: {decode.steps} steps with {attention} take {steps:,} FLOPs, prefill {prompt:,}"
                yield Finding(TIMES * steps <= prompt * decode.steps, text)


def _kv_monotone(rows: Sequence[Row]) -> Iterator[Finding]:
    for stage, attention in {key for _, found in rows for key in found if key[0] != "vision"}:
        along: list[tuple[Callable[[StageFigures], Any], Callable[[StageFigures], Any]]] = [
            (lambda f: f.batch, _last_context_of),
            (_last_context_of, lambda f: f.batch),
        ]
        for fixed, moving in along:
            for before, after in _neighbours(rows, (stage, attention), fixed, moving):
                less, more = before[1].cost.kv_bytes, after[1].cost.kv_bytes
                text = f"{after[0]}: {more:,} B after {stage}, but {less:,} B at {before[0]}"
                yield Finding(more >= less, text)
    for point, found in rows:
        for (stage, attention), decode in found.items():
            prefill = found.get(("prefill", attention))
            if stage == "decode" and prefill and (decode.past_len or 0) >= (prefill.query_len or 0):
                less, more = prefill.cost.kv_bytes, decode.cost.kv_bytes
                yield Finding(more >= less, f"{point}: {more:,} B after decode, {less:,} B after prefill")


def _last_context_of(figures: StageFigures) -> int:
    return _last_context(figures) if figures.stage == "decode" else figures.query_len or 0


def _neighbours(
    rows: Sequence[Row],
    key: Key,
    fixed: Callable[[StageFigures], Any],
    moving: Callable[[StageFigures], Any],
) -> Iterator[tuple[tuple[SweepPoint, StageFigures], tuple[SweepPoint, StageFigures]]]:
    """Pairs of points next to one another in ``moving``, equal in ``fixed``."""
    groups: dict[Any, dict[Any, tuple[SweepPoint, StageFigures]]] = defaultdict(dict)
    for point, found in rows:
        if key in found:
            groups[fixed(found[key])].setdefault(moving(found[key]), (point, found[key]))
    for group in groups.values():
        yield from itertools.pairwise([group[value] for value in sorted(group)])
