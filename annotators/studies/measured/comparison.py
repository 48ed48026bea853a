"""What a trace says of a prediction: time of each op and module, what it reached, and what could not be matched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.models.devices.device import Device


@dataclass(frozen=True, slots=True)
class Part:
    """Ops of a pass together: a module, all executions of one op, or everything.

    Attributes:
        ns: time of all passes, in ns: exact, so that parts add up.
        passes: how many those are.
        flops, matmul_flops, io_bytes: of one pass, of the ops whose time was found.
        bound_s, estimate_s: of the same on the device of the comparison; 0 without one.
    """

    ns: int = 0
    passes: int = 1
    flops: int = 0
    matmul_flops: int = 0
    io_bytes: int = 0
    bound_s: float = 0.0
    estimate_s: float = 0.0

    def __add__(self, other: Part) -> Part:
        return Part(
            self.ns + other.ns,
            max(self.passes, other.passes),
            self.flops + other.flops,
            self.matmul_flops + other.matmul_flops,
            self.io_bytes + other.io_bytes,
            self.bound_s + other.bound_s,
            self.estimate_s + other.estimate_s,
        )

    @property
    def seconds(self) -> float:
        """The mean of a pass."""
        return self.ns / self.passes / 1e9

    @property
    def flops_per_s(self) -> float:
        """FLOPs per second of it; 0 where no time was found."""
        return self.flops / self.seconds if self.ns else 0.0

    @property
    def bytes_per_s(self) -> float:
        """Bytes moved per second of it, op by op as PyTorch runs them."""
        return self.io_bytes / self.seconds if self.ns else 0.0

    @property
    def roof_share(self) -> float:
        """How much of the device's roof it reached: the bound over the time measured."""
        return self.bound_s / self.seconds if self.ns else 0.0

    @property
    def over_estimate(self) -> float:
        """How many times the estimate was measured; 0 where nothing was estimated."""
        return self.seconds / self.estimate_s if self.estimate_s else 0.0


@dataclass(frozen=True, slots=True)
class MeasuredOp:
    """A recorded op of the pass: its name in the graph, the op, its module, what it reads, what was measured, and its
    place in the program."""

    name: str
    op: str
    module: str
    inputs: str
    part: Part
    order: int


@dataclass(frozen=True, slots=True)
class RanOp:
    """An op that ran, recorded or not, in ns since its pass began."""

    name: str
    module: str
    began: int
    ended: int


@dataclass(frozen=True, slots=True)
class Unmatched:
    """Ops of one name and of the same shapes in a module, or in none, of which nothing was recorded."""

    name: str
    module: str
    shapes: str
    count: int
    ns: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """A trace laid over the prediction of a pass.

    Attributes:
        stage: the prediction, its layers recorded one by one.
        device: what it was timed on; None for none.
        on_device: whether times are of kernels on an accelerator, and not of ops on the CPU.
        passes: of the scenario in the trace; times are means over them.
        wall_ns: from begin to end of each pass, all together.
        total_ns: the time of all ops of the trace.
        outside_ns: the part of it that is of no such pass.
        modules: path → its ops and those of all modules inside of it; "" is the whole pass. Paths in program order.
        own: path → the ops of its own code alone: these add up to ``total_ns`` with ``outside_ns``.
        ops: what was recorded and measured, in program order.
        unmatched: what ran in a pass and was not recorded, the longest first.
        missing: what was recorded, costs something and was not found.
        peak_bytes: the most that a pass allocated beyond what was there at its beginning; None where the trace does not
            say.
        first_pass: the ops of the first of the passes, as they ran.
    """

    stage: AnnotatedStage
    device: Device | None
    on_device: bool
    passes: int
    wall_ns: int
    total_ns: int
    outside_ns: int
    modules: Mapping[str, Part] = field(repr=False)
    own: Mapping[str, Part] = field(repr=False)
    ops: tuple[MeasuredOp, ...] = field(repr=False)
    unmatched: tuple[Unmatched, ...] = field(repr=False)
    missing: tuple[MeasuredOp, ...] = field(repr=False)
    ideal_s: float = 0.0
    peak_bytes: int | None = None
    warnings: tuple[str, ...] = ()
    first_pass: tuple[RanOp, ...] = field(default=(), repr=False)

    @property
    def whole(self) -> Part:
        """All ops of a pass."""
        return self.modules[""]

    @property
    def class_name(self) -> str:
        """The class of the model."""
        return self.stage.modules[""].class_name

    def share_of(self, ns: int) -> float:
        """A share of the time of all ops of the passes."""
        return ns / self.whole.ns if self.whole.ns else 0.0

    @property
    def matched_ns(self) -> int:
        """Time of the ops that were recorded."""
        return sum(op.part.ns for op in self.ops)

    @property
    def matched_share(self) -> float:
        """Their share of the time of all ops of the passes."""
        return self.share_of(self.matched_ns)

    @property
    def wall_s(self) -> float:
        """From begin to end of a pass, the mean."""
        return self.wall_ns / self.passes / 1e9

    @property
    def outside_s(self) -> float:
        """Time of ops that are of no such pass, in all."""
        return self.outside_ns / 1e9

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation as measured: the time that the matrix products take at the device's peak, over that
        of a pass from begin to end."""
        return self.ideal_s / self.wall_s if self.wall_ns else 0.0

    @property
    def predicted_mfu(self) -> float:
        """The same of the estimate."""
        return self.ideal_s / self.whole.estimate_s if self.whole.estimate_s else 0.0
