"""Unfused traffic against a count of bytes at dispatch, on the same pass of a real model on the CPU.

python -m validation.io [--no-write]
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass

from fxmeter import annotate, decode, load_model, prefill
from fxmeter.annotators.pricing.graph import priced_nodes
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.models.stage_cost import StageCost
from validation.page import Row, Section, Table, progress, run
from validation.real_runs import BATCH, FAMILIES, PROMPT, STAGES, config_of, real_run, tensors_in
from validation.traffic import Counted, TrafficCounter

DEPENDS = {
    "aten.embedding.default": "predicted: the rows looked up; measured: the table",
    "aten.index.Tensor": "predicted: the rows returned, each as often as it is; measured: the tensor once",
    "aten.gather.default": "predicted: the elements returned; measured: the tensor once",
    "aten.index_put_.default": "predicted: writes what the indices pick; measured: reads and writes the target",
    "aten.scatter_.value": "predicted: writes what the index picks; measured: reads and writes the target",
    "aten.scatter_.src": "predicted: writes what the index picks; measured: reads and writes the target",
    "aten._grouped_mm.default": "predicted: the distinct experts of uniform routing; measured: those with tokens",
    "fxmeter.cache_append.default": "predicted: the new entries, in place; measured: `cat` copies the whole cache",
}
"""Op → why its traffic depends on data, or on how a cache is kept."""

METHOD = """\
**Measured** is counted by a dispatch mode over a real pass (float32 weights, 2 sequences of 24 tokens, or one token
each after them), from addresses alone: every distinct region that an op is given is read once, what it returns in a
new storage is written once, what its schema calls mutable is written; an op that returns views moves nothing. Storages
of parameters and buffers are weights, those of the cache before or after the pass are cache. The sequences of ops are
the same on both sides, and every op is compared by role and way: weights read, cache read and written, activations
read and written. The second table has the ops whose traffic depends on data, on how the cache is kept, or on the
device.
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A pass: each op that moves anything as predicted and as counted, in order."""

    name: str
    predicted: list[Counted]
    counted: list[Counted]
    to_device: tuple[Counted, ...] = ()

    @property
    def aligned(self) -> bool:
        """Whether both sides execute the same ops in the same order."""
        same = {"fxmeter.cache_append.default": "aten.cat.default"}
        return [same.get(p.name, p.name) for p in self.predicted] == [c.name for c in self.counted]

    @property
    def wrong(self) -> list[tuple[Counted, Counted]]:
        """The ops that differ and have no reason to."""
        pairs = zip(self.predicted, self.counted, strict=True)
        return [(p, c) for p, c in pairs if p.name not in DEPENDS and p.moved != c.moved]

    @property
    def row(self) -> Row:
        """The sums over all ops but those that depend on data."""
        pairs = [(p, c) for p, c in zip(self.predicted, self.counted, strict=True) if p.name not in DEPENDS]
        ours, theirs = (sum(item.moved.total() for item in side) for side in zip(*pairs, strict=True))
        left = len(self.predicted) - len(pairs)
        wrong = "; ".join(f"{p.name} {dict(p.moved)} {dict(c.moved)}" for p, c in self.wrong)
        return Row(self.name, ours, theirs, wrong or f"{len(pairs)} ops equal, {left} in the second table")


def check(model_type: str, stage: str) -> Case:
    """One pass, counted and predicted op by op."""
    with real_run(model_type, stage) as real:
        before = tensors_in(list(real.arguments.values()))
        with TrafficCounter() as counter:
            out = real()
        cache = [*before, *tensors_in(real.cache_after(out))]
        counted = [op for op in counter.counted(real.model, cache, [real.tokens]) if op.moved]
    scenario = prefill(PROMPT, batch=BATCH) if stage == "prefill" else decode(PROMPT, batch=BATCH)
    model = load_model(config_of(model_type), dtype="float32")
    ours = predicted_ops(annotate(model, scenario, attention="eager", fold=False))
    case = Case(f"{model_type}, {stage}", *without_copies_to_device(ours, counted))
    progress(f"{case.name}: {'the same' if case.aligned else 'other'} ops")
    return case


def without_copies_to_device(
    predicted: list[Counted], counted: list[Counted]
) -> tuple[list[Counted], list[Counted], tuple[Counted, ...]]:
    """Both sides, and what was left out of the predicted one: copies that a number on the CPU does not need."""
    kept: list[Counted] = []
    left: list[Counted] = []
    for op in predicted:
        here = counted[len(kept)].name if len(kept) < len(counted) else ""
        is_copy = op.name == "aten._to_copy.default" and op.moved["weight", "read"] == op.moved["activation", "written"]
        (left if is_copy and here != op.name else kept).append(op)
    return kept, counted, tuple(left)


def predicted_ops(stage: AnnotatedStage) -> list[Counted]:
    """Every priced op that moves anything, in the order of the program."""
    ops = [Counted(node.op, moved(node.cost)) for node in priced_nodes(stage.graph)]
    return [op for op in ops if op.moved]


def moved(cost: StageCost) -> Counter[tuple[str, str]]:
    """A cost's traffic by role and way."""
    return +Counter(
        {
            ("weight", "read"): cost.weight_read_bytes,
            ("cache", "read"): cost.kv_read_bytes,
            ("cache", "written"): cost.kv_write_bytes,
            ("activation", "read"): cost.activation_read_bytes,
            ("activation", "written"): cost.activation_write_bytes,
        }
    )


def by_reason(cases: list[Case]) -> list[Row]:
    """The ops that depend on data, over all cases."""
    ours, theirs, count = Counter[str](), Counter[str](), Counter[str]()
    for case in cases:
        for p, c in zip(case.predicted, case.counted, strict=True):
            if p.name in DEPENDS:
                ours[p.name] += p.moved.total()
                theirs[p.name] += c.moved.total()
                count[p.name] += 1
    return [
        Row(f"`{name}`, {count[name]}×", ours[name], theirs[name], DEPENDS[name]) for name in DEPENDS if count[name]
    ]


def measure() -> Section:
    """Every family but the largest."""
    cases = [check(name, stage) for name in FAMILIES if name != "gemma3n_text" for stage in STAGES]
    good = [case for case in cases if case.aligned and not case.wrong]
    ops = sum(len(case.predicted) for case in cases)
    depends = sum(op.name in DEPENDS for case in cases for op in case.predicted)
    verdict = (
        f"{len(good)} of {len(cases)} passes execute the same ops in the same order, with traffic equal to the byte by "
        f"role and way in all {ops - depends:,} ops whose traffic does not depend on data; {depends:,} do."
    )
    tables = [
        Table("Ops whose traffic does not depend on data", [case.row for case in cases]),
        Table("Ops whose traffic does, over all passes", by_reason(cases)),
    ]
    return Section("io", "Unfused traffic", METHOD, tables, verdict, len(good) == len(cases))


if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
