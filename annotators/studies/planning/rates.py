"""What a time asks of a machine: the rates that a target needs, and those that a measured time had."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fxmeter.annotators.units import duration, duration_as_typed
from fxmeter.models.choices import StageName
from fxmeter.models.errors import ScenarioError
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

    def on(self, tflops: float, tbps: float) -> Measured:
        """The same, held to these peaks where none was given."""
        return replace(self, peak_tflops=self.peak_tflops or tflops, peak_tbps=self.peak_tbps or tbps)


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
        """Of one pass with this cost. MFU counts matrix products alone.

        Raises ScenarioError where the peaks leave no such time: products above the one, weights and cache, which are
        read whatever a kernel fuses, above the other.
        """
        rates = Rates.of(cost, seconds)
        tflops, tbps = measured.peak_tflops, measured.peak_tbps
        needed = cost.weight_read_bytes + cost.kv_read_bytes + cost.kv_write_bytes
        _refuse_above_peak(stage, seconds, "its matrix products", cost.matmul_flops, tflops, "TFLOP/s")
        _refuse_above_peak(stage, seconds, "its weights and cache", needed, tbps, "TB/s")
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


def _refuse_above_peak(
    stage: StageName, seconds: float, what: str, count: int, tera_per_s: float | None, unit: str
) -> None:
    if tera_per_s is not None and count > seconds * tera_per_s * TERA:
        least = count / tera_per_s / TERA
        raise ScenarioError(
            f"a {stage} of {duration_as_typed(seconds)} is faster than the peak: {what} alone take "
            f"{duration(least)} at {tera_per_s:g} {unit}; check the time, the peak, "
            "and what is counted (--causal, --routing)"
        )
