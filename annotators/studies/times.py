"""What the time of a stage says: tokens a second, what its traffic is, where it stands against the ridge, and in what
modules and kernels it is spent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add

from fxmeter.annotators.sheets.tables import StageTables
from fxmeter.annotators.studies.breakdown import TreeRow, common_name, module_tree
from fxmeter.annotators.timing.stage_time import ZERO, StageTime, Time, TimedKernel
from fxmeter.models.scenario import Scenario
from fxmeter.models.stage_cost import StageCost

TRAFFIC = {
    "weights": ("weight_read_bytes",),
    "the KV cache": ("kv_read_bytes", "kv_write_bytes"),
    "activations": ("activation_read_bytes", "activation_write_bytes"),
}


@dataclass(frozen=True, slots=True)
class StageTiming:
    """A stage, and its time on a device; ``groups`` such batches run at once, on devices of their own."""

    stage: StageTables
    time: StageTime
    groups: int = 1

    @property
    def pass_s(self) -> float:
        """The estimate for one pass: a generation's mean step; of a prompt in chunks all of them."""
        return self.time.estimate_s / getattr(self.stage.scenario, "steps", 1)

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens of all sequences of all groups that a second processes, or makes (of drafted ones as many as are
        expected to be accepted); None for a stage that has no tokens."""
        scenario = self.stage.scenario
        if not isinstance(scenario, Scenario) or scenario.stage == "encode" or not self.pass_s:
            return None
        return self.groups * scenario.batch * scenario.tokens_per_step / self.pass_s

    @property
    def intensity(self) -> float:
        """FLOP per byte that it moves, with chains of ops fused."""
        return self.stage.cost.flops / max(1, self.stage.cost.fused_io_bytes)

    @property
    def dtype(self) -> str:
        """What most of its FLOPs are computed in."""
        return self.time.dtype

    @property
    def ridge(self) -> float:
        """FLOP per byte at which the device turns from memory-bound to compute-bound."""
        return self.time.device.ridge(self.dtype)


def main_traffic(cost: StageCost, *, fused: bool) -> tuple[str, float]:
    """What moves most bytes, and its share of all: op by op, or of what is left with chains of ops ``fused``."""
    fixed = {what: sum(getattr(cost, name) for name in parts) for what, parts in TRAFFIC.items()}
    whole = cost.fused_io_bytes if fused else cost.io_bytes
    fixed["activations"] = max(0, whole - fixed["weights"] - fixed["the KV cache"])
    what = max(fixed, key=lambda key: fixed[key])
    return what, fixed[what] / max(1, sum(fixed.values()))


@dataclass(frozen=True, slots=True)
class TimedRow:
    """A line of the module tree with the time of all instances it stands for, and their share of the stage's."""

    row: TreeRow
    time: Time
    share: float


@dataclass(frozen=True, slots=True)
class TimedOp:
    """Launches that begin with one op in modules of one name."""

    op: str
    where: str
    launches: int
    time: Time
    share: float


def timed_tree(timing: StageTiming, depth: int) -> list[TimedRow]:
    """The module tree, as :func:`fxmeter.annotators.studies.breakdown.module_tree` has it, with times."""
    found = []
    for row in module_tree(timing.stage, depth):
        parts = (timing.time.modules.get(path, ZERO) * times for path, times in row.modules)
        time = reduce(add, parts, ZERO)
        found.append(TimedRow(row, time, timing.time.share_of(time)))
    return found


def longest_ops(timing: StageTiming, count: int) -> list[TimedOp]:
    """The ``count`` groups of launches that take most time."""
    groups: dict[tuple[str, str], list[TimedKernel]] = {}
    for item in timing.time.kernels:
        groups.setdefault((item.kernel.op, common_name([item.kernel.module])), []).append(item)
    found = []
    for (op, where), items in groups.items():
        time = reduce(add, (item.all for item in items), ZERO)
        launches = sum(item.launches for item in items)
        found.append(TimedOp(op.removesuffix(".default"), where, launches, time, timing.time.share_of(time)))
    return sorted(found, key=lambda item: -item.time.estimate_s)[:count]
