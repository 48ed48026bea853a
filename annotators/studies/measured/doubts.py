"""What makes a comparison doubtful, in words."""

from __future__ import annotations

from collections.abc import Iterator

from fxmeter.annotators.pricing.graph import priced_nodes
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.annotators.studies.measured.traces.reading import Trace

NOTABLE = 0.02
MANY = 0.1
_TYPES = {"float": "float32", "double": "float64", "c10::BFloat16": "bfloat16", "c10::Half": "float16"}
"""What the profiler calls dtypes."""


def doubts_of(
    stage: AnnotatedStage, trace: Trace, *, reshaped: float, unmatched: float, missing: float
) -> Iterator[str]:
    """What a reader has to know before the figures.

    Args:
        stage: the prediction.
        trace: the trace.
        reshaped: the share of the time of ops that ran with other shapes than recorded.
        unmatched: the share of the time of ops that were not recorded.
        missing: the share of the prediction's bytes and FLOPs that did not run.
    """
    if set(trace.sizes.values) <= {None}:
        yield "the trace has no shapes (record_shapes=True): ops are matched by name and order alone"
    if reshaped > NOTABLE:
        yield f"{reshaped:.0%} of the time is of ops that ran with other shapes than predicted: other lengths, or code?"
    if unmatched > MANY:
        yield f"{unmatched:.0%} of the time is of ops that were not recorded: other code or kernels, or another model?"
    if missing > NOTABLE:
        yield f"{missing:.0%} of the bytes and FLOPs predicted are of ops that did not run: another model, or kernels?"
    ran = {_TYPES.get(name, name) for name, _ in trace.dtypes.most_common(1)}
    products = (node for node in priced_nodes(stage.graph) if node.cost.matmul_flops)
    dtypes = {str(spec.dtype).removeprefix("torch.") for node in products for spec in node.operands if spec.is_float}
    if ran and dtypes and not ran & dtypes:
        yield f"the trace multiplies in {', '.join(ran)}, the prediction in {', '.join(sorted(dtypes))}: give the dtype"
