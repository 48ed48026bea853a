"""Fused traffic: modules whose kernels can be counted by hand, and the laws between floor, fused and unfused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fxmeter.annotators import annotate, annotate_module
from fxmeter.annotators.pricing.graph import priced_nodes
from fxmeter.models import decode, generation, prefill
from fxmeter.models.stage_cost import StageCost
from fxmeter.tracer import load_model
from tests.tracer.tiny import DEEPSEEK, GEMMA3, GPT_OSS, LLAMA, QWEN_MOE, config

TINY = {"deepseek": DEEPSEEK, "llama": LLAMA, "qwen-moe": QWEN_MOE, "gemma3": GEMMA3, "gpt-oss": GPT_OSS}
SCENARIOS = [prefill(20, batch=2), decode(20, batch=3), prefill(4, past_len=20)]
ROWS, COLUMNS = 8, 16
X = torch.zeros(ROWS, COLUMNS)
WHOLE, ROW_SUMS = ROWS * COLUMNS * 4, ROWS * 4


def module(forward):
    class Made(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(COLUMNS, COLUMNS))

        def forward(self, *inputs):
            return forward(self, *inputs)

    return Made()


def shared_read(self, x):
    return torch.exp(x) + torch.tanh(x) * x


def softmax_by_hand(self, x):
    e = torch.exp(x - x.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


def around_a_product(self, x):
    return torch.relu(torch.relu(x) @ self.weight)


def residual(self, x):
    h = x + 1
    return torch.exp(h) @ self.weight + h


def two_results(self, x):
    y = x * 2
    return y, y + 1


def nobody_asks(self, x):
    torch.exp(x)
    return x + 1


def views(self, x):
    left, right = (x * 2).chunk(2, -1)
    return torch.cat([-right, left], -1)


def rotate(self, x):
    left, right = x.chunk(2, -1)
    return x * 2 + torch.cat([-right, left], -1)


def in_place(self, x):
    y = x * 2
    y += x
    return y.relu_()


def gather_then_scale(self, x):
    rows = torch.zeros(3, dtype=torch.long, device=x.device)
    return (x * 2)[rows] + 1


def reductions_of_two_sizes(self, x):
    return (x.sum(-1) * 2).sum()


WEIGHT, THREE_ROWS = COLUMNS * COLUMNS * 4, 3 * COLUMNS * 4


@pytest.mark.parametrize(
    ("forward", "fused"),
    [
        (shared_read, WHOLE + WHOLE),
        (softmax_by_hand, WHOLE + WHOLE),
        (around_a_product, (WHOLE + WHOLE) + (WHOLE + WEIGHT + WHOLE) + (WHOLE + WHOLE)),
        (residual, (WHOLE + 2 * WHOLE) + (WHOLE + WEIGHT + WHOLE) + (2 * WHOLE + WHOLE)),
        (two_results, WHOLE + 2 * WHOLE),
        (nobody_asks, WHOLE + (WHOLE + WHOLE)),
        (views, WHOLE + WHOLE),
        (rotate, WHOLE + WHOLE),
        (in_place, WHOLE + WHOLE),
        (gather_then_scale, (WHOLE + WHOLE) + (THREE_ROWS + THREE_ROWS)),
        (reductions_of_two_sizes, (WHOLE + ROW_SUMS) + (ROW_SUMS + 4)),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_traffic_of_kernels_counted_by_hand(forward, fused):
    assert annotate_module(module(forward), X).cost.fused_io_bytes == fused


def test_groups_say_what_runs_together():
    groups = annotate_module(module(residual), X).fusion_groups
    assert [group.ops for group in groups] == [("add.Tensor", "exp")]
    assert groups[0].unfused_bytes == 4 * WHOLE
    assert groups[0].fused_bytes == 3 * WHOLE


def test_no_group_waits_for_itself():
    """The first sum and the last one share a tensor, but between them is a product: one kernel cannot be both."""
    groups = annotate_module(module(lambda self, x: (h := x + 1) * 2 + h @ self.weight), X).fusion_groups
    assert all("add.Tensor" not in group.ops or group.ops.count("add.Tensor") == 1 for group in groups)


@pytest.fixture(params=TINY)
def model(request):
    return load_model(config(TINY[request.param]))


@pytest.mark.parametrize("attention", ["eager", "flash"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=["prefill", "decode", "chunk"])
def test_floor_fused_and_unfused_and_folding(model, attention, scenario):
    folded = annotate(model, scenario, attention=attention)
    full = annotate(model, scenario, attention=attention, fold=False)
    for stage in (folded, full):
        assert 0 < stage.floor_io_bytes <= stage.cost.fused_io_bytes < stage.cost.io_bytes
        assert all(node.cost.fused_io_bytes <= node.cost.io_bytes for node in priced_nodes(stage.graph))
        assert all(module.cost.fused_io_bytes <= module.cost.io_bytes for module in stage.modules.values())
    assert folded.floor_io_bytes == full.floor_io_bytes
    assert folded.cost.fused_io_bytes == full.cost.fused_io_bytes
    count = sum(group.times for group in folded.fusion_groups)
    assert count == sum(group.times for group in full.fusion_groups) > 0


def test_weights_are_read_once_in_the_floor(preset_model):
    stage = annotate(preset_model("llama-2-7b"), decode(100))
    embedding, ids, logits = 4096 * 2, 8, 32_000 * 2
    weights = stage.cost.weight_bytes - 32_000 * 4096 * 2 + embedding  # a row of the table; every other weight whole
    position_frequencies = 64 * 4
    assert stage.floor_io_bytes == weights + position_frequencies + stage.cost.kv_bytes + ids + logits


def test_a_generations_floor_is_the_sum_over_its_steps(preset_model):
    model = preset_model("llama-2-7b")
    both = annotate(model, generation(100, steps=2))
    assert both.floor_io_bytes == sum(annotate(model, decode(c)).floor_io_bytes for c in (100, 101))


def test_groups_are_part_of_every_total(preset_model):
    stage = annotate(preset_model("deepseek-ocr"), prefill(64))
    in_groups = sum(group.fused_bytes * group.times for group in stage.fusion_groups)
    alone = StageCost.total(
        node.cost * node.times
        for node in priced_nodes(stage.graph)
        if not any(node.name in group.nodes for group in stage.fusion_groups)
    )
    assert in_groups + alone.fused_io_bytes == stage.cost.fused_io_bytes
