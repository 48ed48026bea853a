"""Peak activations against real runs on the CPU: allocation events of torch.profiler, and a tracker of storages.

python -m validation.peak [--no-write]
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fxmeter.annotators.stages.peak import Peak
from fxmeter.tracer.run.patches.attention import Attention
from validation.allocations import Allocation, Most, most_alive, profiled, tracked, without
from validation.page import Row, Section, Table, named, progress, run
from validation.real_runs import EQUAL_HEADS, FAMILIES, PROMPT, STAGES, predicted, real_run, tensors_in

NO_SDPA = ("gptj", "gpt_oss", "mamba", "gemma3n_text")
"""Families that transformers does not run with ``scaled_dot_product_attention``, and gemma3n for its size."""
SDPA = [*(name for name in FAMILIES if name not in NO_SDPA), EQUAL_HEADS]
BEYOND = ("deepseek_v3", "deepseek_v32", EQUAL_HEADS)
"""Latent attention: no fused kernel on the CPU where value heads are narrower than query heads, a copy where not."""
BAND = 0.01
SCANS = ("mamba", "jamba", "bamba", "qwen3_next")

METHOD = """\
**Measured** is the most bytes alive at one moment of a real pass (float32 weights, 2 sequences of 24 tokens, or one
token each after them), by the allocation events of `torch.profiler`. Told apart from activations are

- the cache: allocations that a tensor of the cache stands in after the pass, found by pickling the cache. What a
  dynamic cache's `cat` copies is such an allocation, and what it lets go of was there before the pass;
- kernels' workspace: allocated and freed while one op ran. The only one at a peak of eager attention outside of scans
  and convolutions is 12 bytes: the number of `x * 0.5`, which PyTorch wraps as a float64 (8) and casts (4).

The explanation says what both add at the moment when most is allocated in all. Where a model's own code loops over
time in Python, the same operator that fxmeter prices stands in its place; a third table has the loops themselves.
A second opinion, a dispatch mode with finalizers on storages, must say the same as the profiler in every case.
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A pass: what was predicted, what both instruments measured."""

    name: str
    peak: Peak
    most: Most
    tracker: int
    raw: Most

    @property
    def equal(self) -> bool:
        """Whether all three agree to the byte."""
        return self.peak.bytes == self.most.nbytes == self.tracker

    @property
    def row(self) -> Row:
        """The table's line."""
        return Row(self.name, self.peak.bytes, self.most.nbytes, "; ".join(filter(None, [self._terms(), self._more()])))

    def _terms(self) -> str:
        """What is alive at the measured peak and not at the predicted one, and the reverse: sums to the difference."""
        if self.equal:
            return ""
        apart = f"the tracker says {self.tracker:,}" if self.most.nbytes != self.tracker else ""
        real = [(item.nbytes, item.op[0].split("::")[-1] if item.op else item.name) for item in self.most.alive]
        ours = [(item.bytes, item.op.split(".")[1]) for item in self.peak.alive]
        more, less = only(real, ours), only(ours, real)
        texts = [f"only measured: {_listed(more)}" if more else "", f"only predicted: {_listed(less)}" if less else ""]
        return "; ".join(filter(None, [apart, *texts]))

    def _more(self) -> str:
        own = [item for item in self.raw.alive if item.kind != "result"]
        if not own:
            return ""
        results = self.raw.nbytes - sum(item.nbytes for item in own)
        when = "" if results == self.most.nbytes else f" when {results:,} is alive"
        return f"apart{when}: {named((item.name, item.nbytes) for item in own)}"


def only(here: Sequence[tuple[int, str]], there: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """What is ``here`` and not ``there``: tensors of one size and op are the same, then tensors of one size."""
    both = Counter(here) & Counter(there)
    left = list((Counter(here) - both).elements())
    sizes = Counter(size for size, _ in (Counter(there) - both).elements())
    found = []
    for size, name in left:
        if sizes[size]:
            sizes[size] -= 1
        else:
            found.append((size, name))
    return found


def _listed(tensors: Sequence[tuple[int, str]]) -> str:
    return named((f"`{name}`", size) for size, name in tensors)


def check(model_type: str, stage: str, attention: Attention = "eager", *, prompt: int = PROMPT) -> Case:
    """Predict one pass, run it twice, once under each instrument."""
    implementation = "eager" if attention == "eager" else "sdpa"
    with real_run(model_type, stage, attention=implementation, prompt=prompt) as real:
        out, everything = profiled(real)
        allocations = without(everything, tensors_in(real.cache_after(out)))
    with real_run(model_type, stage, attention=implementation, prompt=prompt) as real:
        out, tracker = tracked(real)
        second = tracker.most(tensors_in(real.cache_after(out)))
    peak = predicted(model_type, stage, attention=attention, prompt=prompt).peak
    assert peak is not None
    results = [allocation for allocation in allocations if allocation.kind == "result"]
    case = Case(f"{model_type}, {stage}", peak, most_alive(results), second, most_alive(allocations))
    progress(f"{case.name}, {attention}: {case.peak.bytes:,} {case.most.nbytes:,} {case.tracker:,}")
    return case


def loops(model_type: str, stage: str) -> Row:
    """The same pass with the model's own loop over time: what a kernel keeps to itself is tensors here."""
    with real_run(model_type, stage, scans=False) as real:
        out, everything = profiled(real)
        allocations = without(everything, tensors_in(real.cache_after(out)))
    most = most_alive([allocation for allocation in allocations if allocation.kind == "result"])
    ours = predicted(model_type, stage).cost.peak_activation_bytes
    return Row(f"{model_type}, {stage}", ours, most.nbytes, _largest(most.alive))


def _largest(alive: Sequence[Allocation]) -> str:
    first = sorted(alive, key=lambda item: -item.nbytes)[:3]
    return "largest of the loop's: " + named(
        (f"`{item.op[0].split('::')[-1]}`", item.nbytes) for item in first if item.op
    )


def measure() -> Section:
    """Every family."""
    eager = [check(name, stage) for name in FAMILIES for stage in STAGES]
    flash = [check(name, stage, "flash") for name in SDPA for stage in STAGES]
    loop_rows = [loops(name, stage) for name in SCANS for stage in STAGES]
    equal = sum(case.equal for case in eager)
    close = [case for case in flash if abs(case.row.error or 0) <= BAND]
    far = [case for case in flash if case not in close]
    verdict = (
        f"Eager: {equal} of {len(eager)} passes of {len(FAMILIES)} families equal to the byte, by both instruments. "
        f"Flash against SDPA: {sum(case.equal for case in flash)} of {len(flash)} equal, {len(close)} within 1 %. "
        + (f"Beyond it: {'; '.join(case.name for case in far)}. {WHY_FAR}" if far else "")
    )
    tables = [
        Table("Eager attention", [case.row for case in eager]),
        Table("Flash, against `scaled_dot_product_attention`", [case.row for case in flash]),
        Table("Scans: the operator, against the loop in Python", loop_rows),
    ]
    holds = equal == len(eager) and all(case.name.split(",")[0] in BEYOND for case in far)
    return Section("peak", "Peak activations", METHOD, tables, verdict, holds)


WHY_FAR = """\
In DeepSeek value heads are narrower than query heads, for which PyTorch has no fused kernel on the CPU: it takes the
call apart into products and a softmax, whose tensors are named above. With equal head sizes there is one; its output
takes the layout of the query, dense by head here, and transformers copies it into the order of tokens (`clone`).
Windows cost a mask (`bitwise_and`), which transformers builds for SDPA and a flash kernel does not need."""

if __name__ == "__main__":
    sys.exit(run(measure, __doc__))
