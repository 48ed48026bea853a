"""What a time asks of a machine: the rates that a target needs, and those that a measured time had."""

from __future__ import annotations

from dataclasses import dataclass

from fxmeter.models.choices import StageName
from fxmeter.models.figures import TERA
from fxmeter.models.stage_cost import StageCost


@dataclass(frozen=True, slots=True)
class Rates:
    """What a stage must run at to be done in ``seconds``: TFLOP/s, and TB/s op by op and with chains fused."""

    seconds: float
    tflops: float
    tbps: float
    fused_tbps: float

    @classmethod
    def of(cls, cost: StageCost, seconds: float) -> Rates:
        """Everything that ``cost`` counts, over the time."""
        counts = (cost.flops, cost.io_bytes, cost.fused_io_bytes)
        return cls(seconds, *(count / seconds / TERA for count in counts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Measured times in seconds, of the prefill and of one decode step, and the peaks that they are held to."""

    prefill_s: float | None = None
    decode_s: float | None = None
    peak_tflops: float | None = None
    peak_tbps: float | None = None

    def __bool__(self) -> bool:
        return self.prefill_s is not None or self.decode_s is not None


UNMEASURED = Measured()


@dataclass(frozen=True, slots=True)
class Utilisation:
    """A measured time against a stage's counts: rates achieved, and their shares of a peak where one was given."""

    stage: StageName
    seconds: float
    tflops: float
    tbps: float
    fused_tbps: float
    mfu: float | None
    bandwidth: float | None
    fused_bandwidth: float | None

    @classmethod
    def of(cls, stage: StageName, cost: StageCost, seconds: float, measured: Measured) -> Utilisation:
        """Of one pass with this cost. MFU counts matrix products alone."""
        rates = Rates.of(cost, seconds)
        tflops, tbps = measured.peak_tflops, measured.peak_tbps
        return cls(
            stage=stage,
            seconds=seconds,
            tflops=rates.tflops,
            tbps=rates.tbps,
            fused_tbps=rates.fused_tbps,
            mfu=None if tflops is None else cost.matmul_flops / seconds / TERA / tflops,
            bandwidth=None if tbps is None else rates.tbps / tbps,
            fused_bandwidth=None if tbps is None else rates.fused_tbps / tbps,
        )
