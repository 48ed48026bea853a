"""Where an estimate goes beyond what it was held to: then it is marked as extrapolated, with the reasons.

Held to published measurements (docs/validation_time.md): decode of one to a few sequences and prompts of 512 tokens and
more, in dtypes and on devices of which kernels were measured. Weight-only formats depend on the library that multiplies
them more than on the device: the same device reaches .40 of its bandwidth with one and .76 with another.
"""

from __future__ import annotations

from collections.abc import Iterable

from fxmeter.annotators.timing.kernel import Kernel
from fxmeter.models.devices.device import MEASURED_NOWHERE, Device
from fxmeter.models.scenario import Scenario, VisionScenario

SHORTEST = 512
"""Tokens of a prefill, of all sequences, from which on it was held to measurements."""
LARGEST_BATCH = 16
"""Sequences of a decode step up to which it was."""


def beyond(
    kernels: Iterable[Kernel], device: Device, scenario: Scenario | VisionScenario | None = None
) -> tuple[str, ...]:
    """Why the estimate of a pass made of ``kernels`` is an extrapolation; none where it was held to measurements."""
    reasons = []
    if isinstance(scenario, Scenario):
        if scenario.stage == "prefill" and scenario.batch * scenario.query_len < SHORTEST:
            reasons.append(f"prompts below {SHORTEST} tokens")
        if scenario.stage == "decode" and scenario.batch > LARGEST_BATCH:
            reasons.append(f"batches above {LARGEST_BATCH}, a saturated server")
    products = [kernel for kernel in kernels if kernel.kind == "product"]
    if any(kernel.widened for kernel in products):
        reasons.append("weights that are widened inside of the product")
    if device.efficiency.source == MEASURED_NOWHERE:
        return (*reasons, f"no kernel was measured on {device.name}")
    computed = {device.matrix(kernel.dtype)[0] for kernel in products}
    unmeasured = sorted(computed - set(device.efficiency.matrix))
    return (*reasons, *(f"no product in {dtype} was measured on {device.name}" for dtype in unmeasured))
