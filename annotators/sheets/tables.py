"""The tables that a report on one stage shows, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from fxmeter.annotators.conventions import Conventions
from fxmeter.annotators.timing.kernel import Kernel
from fxmeter.models.choices import Attention
from fxmeter.models.figures import PassFigures
from fxmeter.models.mixed_step import MixedStep
from fxmeter.models.scenario import Scenario, VisionScenario
from fxmeter.models.stage_cost import PASS_FIGURES, Cost, StageCost

CONTAINERS = ("ModuleList", "ModuleDict")
"""Classes that run nothing: their members are their parent's."""


@dataclass(frozen=True, slots=True)
class ModuleCost:
    """A module's cost, everything inside it included, for one instance; ``times`` identical ones are in the model.

    ``own`` is the part that its own code executes, outside of its submodules.
    """

    path: str
    class_name: str
    times: int
    cost: Cost
    own: Cost

    @property
    def total(self) -> Cost:
        """The cost of all instances together."""
        return self.cost * self.times


@dataclass(frozen=True, eq=False, repr=False)
class ModuleCosts(Mapping[str, ModuleCost]):
    """Module path → cost. Iterates over what was recorded; another path finds its stand-in's, under its own name.

    Attributes:
        recorded: path → cost.
        folds: path of each module instance that was not recorded → path of the one that stands for it.
        aliases: further name of a module → its first one.
    """

    recorded: Mapping[str, ModuleCost]
    folds: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, path: str) -> ModuleCost:
        found = self.recorded[self.stand_in(path)]
        return found if found.path == path else replace(found, path=path)

    def __iter__(self) -> Iterator[str]:
        return iter(self.recorded)

    def __len__(self) -> int:
        return len(self.recorded)

    def with_costs(self, made: Callable[[Callable[[ModuleCosts], Cost]], Cost]) -> ModuleCosts:
        """The same modules with other costs: what ``made`` makes of a function that finds the one in question in any
        modules."""

        def changed(path: str, module: ModuleCost) -> ModuleCost:
            return replace(module, cost=made(lambda all_: all_[path].cost), own=made(lambda all_: all_[path].own))

        return replace(self, recorded={path: changed(path, module) for path, module in self.recorded.items()})

    def stand_in(self, path: str) -> str:
        """The path under which a module was recorded; itself where there is none."""
        seen: set[str] = set()
        while path not in self.recorded and path not in seen:
            seen.add(path)
            parts = path.split(".")
            for end in range(len(parts), 0, -1):
                head = ".".join(parts[:end])
                stand_in = self.folds.get(head) or self.aliases.get(head)
                if stand_in is not None:
                    path = ".".join([stand_in, *parts[end:]])
                    break
        return path


@dataclass(frozen=True, slots=True)
class OpCost:
    """All executions of one op: how many, and what they cost together."""

    op: str
    count: int
    cost: StageCost


@dataclass(frozen=True, slots=True)
class Uncosted:
    """Executions of an op that no rule knows, by module and shapes."""

    op: str
    count: int
    module: str
    shapes: str


@dataclass(frozen=True, slots=True)
class CacheLayer:
    """What one layer keeps in the cache after the pass: the class that keeps it, and its tensors with their names."""

    layer: int
    kind: str
    shapes: tuple[tuple[int, ...], ...]
    bytes: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AliveRow:
    """Tensors alive at the peak that one op made in one module, with the same shape and dtype.

    ``bytes`` of them all together, which are ``share`` of the peak.
    """

    module: str
    op: str
    shape: tuple[int, ...]
    dtype: str
    count: int
    bytes: int
    share: float


@dataclass(frozen=True, slots=True)
class AtPeak:
    """The moment of a stage at which most activation memory is in use: what ran where, and what was alive.

    ``rows`` have the largest first; ``count`` and ``bytes`` are their totals. ``past_len`` is that of the step, where
    the stage is a generation of several; None for any other.
    """

    node: str
    op: str
    module: str
    past_len: int | None
    count: int
    bytes: int
    rows: tuple[AliveRow, ...]


@dataclass(frozen=True, slots=True)
class Executions:
    """Executions of one op by one module on tensors of the same ``inputs``, and what they cost together."""

    op: str
    module: str
    inputs: str
    count: int
    cost: Cost


@dataclass(frozen=True, slots=True)
class PipelineStage:
    """Layers ``first`` up to ``last`` and what belongs to them.

    ``send`` is what hands their output to the next stage, None in the last one. ``launches`` has, of each kernel of the
    pass, how many the stage launches, where kernels are known.
    """

    first: int
    last: int
    cost: StageCost
    send: Kernel | None
    launches: tuple[int, ...] = ()

    @property
    def sent_bytes(self) -> int:
        """What goes to the next stage."""
        sent: int = 0 if self.send is None else self.send.network_bytes
        return sent


class OfPass(Protocol):
    """What says of which pass it is."""

    @property
    def scenario(self) -> Scenario | MixedStep | VisionScenario | None:
        """The pass."""

    @property
    def attention(self) -> Attention:
        """What attends in it."""


@dataclass(frozen=True, slots=True)
class StageTables(PassFigures):
    """One pass, or the steps of a generation: what it was, by which conventions, and its cost by part.

    Beside its ``cost`` it has the figures that only a whole pass has: ``floor_io_bytes``.
    """

    scenario: Scenario | MixedStep | VisionScenario | None
    attention: Attention
    conventions: Conventions
    cost: StageCost
    modules: ModuleCosts
    ops: tuple[OpCost, ...]
    kv_cache: tuple[CacheLayer, ...]
    uncosted: tuple[Uncosted, ...]

    def value(self, figure: str) -> float:
        """What the whole stage has of a figure."""
        amount: float = getattr(self if figure in PASS_FIGURES else self.cost, figure)
        return amount


@dataclass(frozen=True, slots=True)
class ReportedStage(StageTables):
    """All that a report shows of a stage: its tables, its ops by shapes, what is alive at its peak, and what its
    recording took for granted."""

    executed: tuple[Executions, ...]
    at_peak: AtPeak | None
    assumptions: tuple[str, ...]


def within(path: str, around: str) -> bool:
    """Whether a module is the one at ``around`` or in it; everything is in "", the root."""
    return not around or path == around or path.startswith(f"{around}.")


def op_costs(totals: Mapping[str, tuple[int, StageCost]]) -> tuple[OpCost, ...]:
    """By op, most FLOPs first, then most bytes."""
    order = sorted(totals, key=lambda op: (-totals[op][1].flops, -totals[op][1].io_bytes, op))
    return tuple(OpCost(op, *totals[op]) for op in order)
