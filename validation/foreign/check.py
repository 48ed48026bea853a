"""One model of elsewhere against what it really does: products that torch counts, bytes that torch allocates."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from fxmeter import annotate_module
from fxmeter.annotators.stages.rollup import AnnotatedStage
from validation.allocations import most_alive, profiled, tracked
from validation.even_choices import EvenChoices
from validation.foreign.call import Call
from validation.peak import Case


@dataclass(frozen=True, slots=True)
class Found:
    """What was predicted of a call, and what was counted and measured of a real one.

    ``unseen`` are the products of ops that the counter does not know, by name.
    """

    name: str
    parameters: int
    flops: int
    counted: int
    unseen: dict[str, int]
    uncosted: tuple[str, ...]
    assumptions: tuple[str, ...]
    peak: Case

    @property
    def flops_hold(self) -> bool:
        """Whether products are those that were counted, and those of ops that the counter does not know."""
        return self.flops - self.counted == sum(self.unseen.values()) and not self.uncosted

    @property
    def peak_holds(self) -> bool:
        """Whether the peak is equal, or what is alive instead is named."""
        return self.peak.equal or "only" in self.explanation

    @property
    def explanation(self) -> str:
        """Every term of a difference, and what was assumed."""
        unseen = [f"not known to the counter: `{name}` {flops:,}" for name, flops in self.unseen.items()]
        missing = [f"no rule: {', '.join(self.uncosted)}"] if self.uncosted else []
        assumed = [f"assumed: {text}" for text in self.assumptions]
        return "; ".join(filter(None, [*missing, *unseen, self.peak.row.explanation, *assumed]))


def check(name: str, make: Callable[[], Call]) -> Found:
    """Predict one call, execute it under each instrument."""
    torch.manual_seed(0)
    call = make()
    call.module.train(call.training)
    stage = annotate_module(call.module, args=call.args, kwargs=call.kwargs, attention="eager")
    if stage.peak is None:
        raise ValueError(f"{name} allocates nothing")
    with _as_predicted(stage):
        copy.deepcopy(call)()  # what is made once, by torch or for the routing, is not of the call
        _, allocations = profiled(copy.deepcopy(call))
        _, tracker = tracked(copy.deepcopy(call))
        with FlopCounterMode(display=False) as counter:
            call()
    most = most_alive([allocation for allocation in allocations if allocation.kind == "result"])
    return Found(
        name,
        sum(weight.numel for weight in stage.recording.weights),
        stage.cost.matmul_flops,
        counter.get_total_flops(),
        _unseen(stage),
        tuple(sorted({op.op for op in stage.uncosted})),
        stage.recording.assumptions,
        Case(name, stage.peak, most, tracker.most([]), most),
    )


def _unseen(stage: AnnotatedStage) -> dict[str, int]:
    known = {str(packet).replace("aten.", "") for packet in flop_registry}
    products = {op.op.split(".")[1]: op.cost.matmul_flops for op in stage.ops if op.cost.matmul_flops}
    return {name: flops for name, flops in products.items() if name not in known}


@contextmanager
def _as_predicted(stage: AnnotatedStage) -> Iterator[None]:
    """No gradients, attention and layers op by op and not by a kernel that the counter does not know; even routing.

    The last only where it was assumed: under any mode torch makes some results anew that it else changes in place.
    """
    routed = any("picks every position" in text for text in stage.recording.assumptions)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            warnings.catch_warnings(),
            torch.no_grad(),
            EvenChoices() if routed else nullcontext(),
            sdpa_kernel(SDPBackend.MATH),
        ):
            warnings.simplefilter("ignore")  # of the flags below, which name hardware that is not here
            with torch.backends.mkldnn.flags(enabled=False):
                yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
