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
from operator import attrgetter

from fxmeter.annotators.studies.axes import SweepPoint
from fxmeter.annotators.studies.sweep import Key, StageFigures, Sweep

LEAST_PROMPT = 64
TIMES = 10

_batch: Callable[[StageFigures], int] = attrgetter("scenario.batch")
_tokens: Callable[[StageFigures], int] = attrgetter("tokens")

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
    """One comparison: whether it holds (None where the numbers rule it out), in words what was found."""

    holds: bool | None
    text: str


def check(sweep: Sweep) -> tuple[Verdict, ...]:
    """Every ratio, over all points."""
    rows: list[Row] = [
        (point, {figures.key: figures for figures in stages})
        for point, stages in zip(sweep.points, sweep.figures, strict=True)
    ]
    ratios = {
        "flash decode activations constant in the context": _flash_constant,
        "flash decode activations below prefill's": _flash_below,
        "eager at least flash": _eager_above,
        "a decode step far below prefill": _decode_below,
        "KV monotone": _kv_monotone,
    }
    return tuple(_verdict(name, findings(rows)) for name, findings in ratios.items())


def _verdict(name: str, findings: Iterable[Finding]) -> Verdict:
    compared, ruled_out = 0, "no two points to compare"
    for finding in findings:
        if finding.holds is None:
            ruled_out = finding.text
            continue
        compared += 1
        if not finding.holds:
            return Verdict(name, compared, broken=finding.text)
    return Verdict(name, compared, skipped=None if compared else ruled_out)


def _flash_constant(rows: Sequence[Row]) -> Iterator[Finding]:
    pairs = _neighbours(rows, ("decode", "flash"), lambda figures: (_batch(figures), figures.steps), _tokens)
    for (at, fewer), (point, more) in pairs:
        tokens = more.tokens - fewer.tokens
        read = (_read_by_last(more) - _read_by_last(fewer)) // (tokens * _batch(more))
        if read > 0:
            yield Finding(None, f"a step reads {read:,} B of activations more per cached token: the model's own code")
            continue
        small, large = fewer.cost.activation_bytes, more.cost.activation_bytes
        yield Finding(large <= small, f"{point}: {large:,} B, but {small:,} B at {at}")


def _read_by_last(figures: StageFigures) -> int:
    return int(figures.cost.activation_read_bytes // figures.steps)


def _flash_below(rows: Sequence[Row]) -> Iterator[Finding]:
    for point, stages in rows:
        decode, prefill = stages.get(("decode", "flash")), stages.get(("prefill", "flash"))
        if decode and prefill and _comparable(decode, prefill, 2):
            less, more = decode.cost.activation_bytes, prefill.cost.activation_bytes
            yield Finding(less < more, f"{point}: decode makes {less:,} B, prefill {more:,} B")


def _comparable(decode: StageFigures, prefill: StageFigures, least: int) -> bool:
    """Whether the last step's context is not far beyond the prompt, of at least ``least`` tokens."""
    return prefill.tokens >= least and decode.tokens <= 2 * prefill.tokens


def _eager_above(rows: Sequence[Row]) -> Iterator[Finding]:
    for point, stages in rows:
        for (stage, attention), flash in stages.items():
            eager = stages.get((stage, "eager"))
            if attention == "flash" and eager:
                for field in ("matmul_flops", "activation_bytes", "io_bytes"):
                    less, more = getattr(flash.cost, field), getattr(eager.cost, field)
                    text = f"{point}: {stage} {field} is {more:,} with eager, {less:,} with flash"
                    yield Finding(more >= less, text)


def _decode_below(rows: Sequence[Row]) -> Iterator[Finding]:
    for point, stages in rows:
        for (stage, attention), decode in stages.items():
            prefill = stages.get(("prefill", attention))
            if stage == "decode" and prefill and _comparable(decode, prefill, LEAST_PROMPT):
                steps, prompt = decode.cost.flops, prefill.cost.flops
                text = f"{point}: {decode.steps} steps with {attention} take {steps:,} FLOPs, prefill {prompt:,}"
                yield Finding(TIMES * steps <= prompt * decode.steps, text)


def _kv_monotone(rows: Sequence[Row]) -> Iterator[Finding]:
    for stage, attention in {key for _, stages in rows for key in stages if key[0] != "vision"}:
        for fixed, moving in ((_batch, _tokens), (_tokens, _batch)):
            for (at, fewer), (point, more) in _neighbours(rows, (stage, attention), fixed, moving):
                small, large = fewer.cost.kv_bytes, more.cost.kv_bytes
                yield Finding(large >= small, f"{point}: {large:,} B after {stage}, but {small:,} B at {at}")
    for point, stages in rows:
        for (stage, attention), decode in stages.items():
            prefill = stages.get(("prefill", attention))
            if stage == "decode" and prefill and decode.tokens - decode.steps >= prefill.tokens:
                before, after = prefill.cost.kv_bytes, decode.cost.kv_bytes
                yield Finding(after >= before, f"{point}: {after:,} B after decode, {before:,} B after prefill")


def _neighbours(
    rows: Sequence[Row], key: Key, fixed: Callable[[StageFigures], object], moving: Callable[[StageFigures], int]
) -> Iterator[tuple[tuple[SweepPoint, StageFigures], tuple[SweepPoint, StageFigures]]]:
    """Pairs of points next to one another in ``moving``, equal in ``fixed``."""
    groups: dict[object, dict[int, tuple[SweepPoint, StageFigures]]] = defaultdict(dict)
    for point, stages in rows:
        if key in stages:
            groups[fixed(stages[key])].setdefault(moving(stages[key]), (point, stages[key]))
    for group in groups.values():
        yield from itertools.pairwise([group[value] for value in sorted(group)])
