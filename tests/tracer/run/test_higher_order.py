"""torch.cond, while_loop, scan and flex_attention, as the ops that they run."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from fxmeter import annotate_module

SMALL, LARGE = 2 * 2 * 4 * 4, 2 * 2 * 4 * 8 + 2 * 2 * 8 * 4


class Flow(nn.Module):
    """A small part, a large one, and a forward that chooses."""

    def __init__(self, forward):
        super().__init__()
        self.small, self.large = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))
        self.run = forward

    def forward(self, *args):
        return self.run(self, *args)


def stage_of(forward, *args, **options):
    return annotate_module(Flow(forward), *args, **options)


def either(self, x):
    return torch.cond(x.sum() > 0, lambda x: self.small(x), lambda x: self.large(x), (x,))


def test_the_larger_branch_is_priced_where_the_predicate_is_not_known_and_that_is_said():
    stage = stage_of(either, torch.empty(2, 4, device="meta"))
    assert stage.cost.matmul_flops == LARGE
    assert stage.modules["large.0"].cost.matmul_flops == 2 * 2 * 4 * 8
    assert "small" not in stage.recording.calls
    (said,) = stage.recording.assumptions
    assert f"larger branch, the false one: {LARGE} matmul FLOPs against {SMALL}" in said


@pytest.mark.parametrize(("value", "flops"), [(1.0, SMALL), (-1.0, LARGE)])
def test_a_known_predicate_takes_its_branch(value, flops):
    stage = stage_of(either, torch.full((2, 4), value))
    assert (stage.cost.matmul_flops, stage.recording.assumptions) == (flops, ())


def test_a_branch_within_a_branch():
    def nested(self, x):
        return torch.cond(self.small(x).sum() > 0, lambda x: either(self, x), lambda x: x * 2, (x,))

    stage = stage_of(nested, torch.randn(2, 4))
    assert stage.cost.matmul_flops == SMALL + (LARGE if stage.recording.assumptions[-1].count("larger") else 0)
    assert stage.modules["large"].cost.matmul_flops in (0, LARGE)


def test_a_loop_runs_as_often_as_its_condition_says():
    def thrice(self, x):
        start = torch.zeros((), dtype=torch.int64)
        return while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, self.small(x)), (start, x))

    stage = stage_of(thrice, torch.randn(2, 4))
    assert (stage.cost.matmul_flops, stage.recording.assumptions) == (3 * SMALL, ())


def test_a_loop_whose_end_depends_on_data_runs_once_and_that_is_said():
    def until(self, x):
        return while_loop(lambda x: self.small(x).sum() < 3, lambda x: (self.large(x),), (x,))

    stage = stage_of(until, torch.randn(2, 4))
    assert stage.cost.matmul_flops == SMALL + LARGE
    assert "ends after step 1" in stage.recording.assumptions[0]


def test_a_scan_takes_a_step_for_each_element():
    stage = stage_of(lambda self, x: scan(lambda carry, x: (carry + x, self.small(x)), x[0], x), torch.randn(5, 4))
    assert stage.cost.matmul_flops == 5 * 2 * 4 * 4
    assert stage.recording.calls["small"] == 5


def causal(b, h, q, k):
    return q >= k


def window(b, h, q, k):
    return (q >= k) & (q - k < 3 + h)  # head h sees 3 + h keys


QKV = torch.randn(2, 3, 8, 16)


@pytest.mark.parametrize(
    ("mask", "pairs"),
    [(causal, 3 * 8 * 9 // 2), (window, sum(min(i + 1, 3 + h) for h in range(3) for i in range(8))), (None, 3 * 64)],
)
def test_flex_attention_has_the_pairs_of_its_mask(mask, pairs):
    def attend(self, q):
        block = None if mask is None else create_block_mask(mask, None, 3, 8, 8, device=q.device)
        return flex_attention(q, q, q, block_mask=block)

    exact, full = (stage_of(attend, QKV, causal=causal).cost.matmul_flops for causal in ("exact", "full"))
    assert exact == 2 * 2 * pairs * (16 + 16)
    assert full == 2 * 2 * 3 * 8 * 8 * (16 + 16) == stage_of(attend, QKV, attention="eager").cost.matmul_flops


def test_what_changes_the_scores_costs_one_for_each_op():
    def softcap(score, b, h, q, k):
        return 20 * torch.tanh(score / 20)

    def core(**options):
        (op,) = (op for op in stage_of(lambda s, q: flex_attention(q, q, q, **options), QKV).ops if "flex" in op.op)
        return op.cost.vector_flops

    assert core(score_mod=softcap) == (6 + 3) * 2 * 3 * 8 * 8
    assert core() == 6 * 2 * 3 * 8 * 8


def test_a_block_mask_may_be_an_argument_or_an_attribute():
    block = create_block_mask(causal, None, None, 8, 8, device="cpu")

    def attend(self, q, mask=None):
        return flex_attention(q, q, q, block_mask=self.mask if mask is None else mask)

    module = Flow(attend)
    module.mask = block
    kept = annotate_module(module, QKV, causal="exact").cost.matmul_flops
    given = stage_of(attend, QKV, block, causal="exact").cost.matmul_flops
    assert kept == given == 2 * 2 * 3 * 36 * (16 + 16)


@pytest.mark.parametrize(("enabled", "said"), [(False, 0), (True, 1)])
def test_autocast_on_the_device_of_a_tensor_runs_and_is_said_to_do_nothing(enabled, said):
    def cast(self, x):
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=enabled):
            return self.small(x)

    stage = stage_of(cast, torch.randn(2, 4))
    assert stage.cost.matmul_flops == SMALL
    assert len([text for text in stage.recording.assumptions if "torch.autocast to bfloat16" in text]) == said
