"""What code asks about values: worked out from constants and positions, once, whatever is changed in between."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from fxmeter.annotators import annotate_module


def rows(ask):
    """How many rows of an input a module takes that asks ``ask(x)``: its product has 2·rows·8·8 FLOPs."""
    module = type("Asks", (nn.Module,), {"forward": lambda self, x: x[: ask(x)] @ x[:8]})()
    flops = annotate_module(module, torch.zeros(64, 8)).cost.matmul_flops
    assert flops % (2 * 8 * 8) == 0
    return flops // (2 * 8 * 8)


def in_turn(x):
    counts, total = torch.zeros(4, dtype=torch.long, device=x.device), 0
    for index in range(3):
        counts[index] += index + 1
        total += int(counts.sum())  # 1, 3, 6
    return total


def read_before_and_asked_after(x):
    a = torch.arange(4, device=x.device)
    b = a + 1
    a.add_(10)
    return int(a[0]) + int(b[0])  # 10 and 1


def a_view_of_what_changed_twice(x):
    a = torch.arange(4, device=x.device)
    tail = a[2:]
    first = int(tail[0])  # 2
    a.mul_(3)
    second = int(tail[0])  # 6
    tail.add_(1)
    return first + second + int(a[2])  # 7


def several_results(x):
    left, right = torch.arange(10, device=x.device).split(5)
    right.sub_(left)
    return int(right[0]) + int(left.sum())  # 5 and 10


@pytest.mark.parametrize(
    ("ask", "expected"),
    [(in_turn, 10), (read_before_and_asked_after, 11), (a_view_of_what_changed_twice, 15), (several_results, 15)],
)
def test_a_value_is_what_it_is_when_it_is_asked_for(ask, expected):
    assert rows(ask) == expected


@pytest.mark.parametrize("questions", [2, 40])
def test_each_op_is_worked_out_once_however_often_it_is_asked_about(questions):
    def ask(x):
        table = torch.arange(questions, device=x.device).cumsum(0)
        return sum(int(table[index]) for index in range(questions)) * 0 + 1

    with profile(activities=[ProfilerActivity.CPU]) as seen:
        rows(ask)
    ran = [event for event in seen.events() if event.name == "aten::cumsum"]
    on_meta_and_by_the_recorder, for_the_answers = 2, 1
    assert len(ran) <= on_meta_and_by_the_recorder + for_the_answers


class Routed(nn.Module):
    """Each token to two of four experts; their weights are made to sum to one in place, as many routers do."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(8, 4, bias=False)
        self.experts = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(4))

    def forward(self, x):
        weights, chosen = self.gate(x).softmax(-1).topk(2)
        weights /= weights.sum(-1, keepdim=True)
        out = torch.zeros_like(x)
        for index in torch.bincount(chosen.flatten(), minlength=4).nonzero().flatten().tolist():
            token, place = torch.where(chosen == index)
            out.index_add_(0, token, self.experts[index](x[token]) * weights[token, place, None])
        return out


def test_what_changes_one_result_of_an_op_says_nothing_of_the_others():
    tokens = 6
    stage = annotate_module(Routed(), torch.randn(tokens, 8))
    assert stage.cost.matmul_flops == 2 * tokens * 8 * 4 + 2 * (2 * tokens) * 8 * 8
