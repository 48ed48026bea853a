"""Unfused traffic equals a count of bytes at dispatch, op by op, on the same pass of a real model."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from validation.io import check, without_copies_to_device
from validation.real_runs import FAMILIES, STAGES
from validation.traffic import Counted, TrafficCounter, distinct_bytes

QUICK = ("llama", "gemma3_text", "gpt2", "deepseek_v3", "gpt_oss", "mamba", "bamba")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in FAMILIES if n != "gemma3n_text"],
)
def test_every_op_whose_traffic_does_not_depend_on_data_moves_what_was_predicted(name, stage):
    case = check(name, stage)
    assert case.aligned
    assert case.wrong == []
    assert case.row.predicted == case.row.measured > 0


def count(call, *weights):
    module = nn.Module()
    for index, weight in enumerate(weights):
        module.register_buffer(f"w{index}", weight)
    with TrafficCounter() as counter:
        kept = call()
    del kept
    return [(op.name.split(".")[1], dict(op.moved)) for op in counter.counted(module, [], []) if op.moved]


def test_the_counter_goes_by_addresses():
    w = torch.zeros(10, 4)
    read, written = ("activation", "read"), ("activation", "written")

    def call():
        x = torch.ones(10, 4)
        y = x + x  # one region
        y = y[:5].t() * w[:5].t()  # views are free
        y.mul_(2)
        y.zero_()  # overwrites
        torch.empty_like(y)
        return y + y.new_ones(4, 1).expand(4, 5)  # a broadcast operand, each element once

    assert count(call, w) == [
        ("ones", {written: 160}),
        ("add", {read: 160, written: 160}),
        ("mul", {read: 80, ("weight", "read"): 80, written: 80}),
        ("mul_", {read: 80, written: 80}),
        ("zero_", {written: 80}),
        ("new_ones", {written: 16}),
        ("add", {read: 80 + 16, written: 80}),
    ]


def test_of_a_grouped_product_only_experts_with_rows_are_read():
    ends = torch.tensor([3, 3, 5, 5], dtype=torch.int32)  # experts 0 and 2 of four
    rows, weights = torch.zeros(5, 16), torch.zeros(4, 16, 8)
    moved = count(lambda: torch._grouped_mm(rows, weights, offs=ends), weights)[-1][1]
    assert moved["weight", "read"] == 2 * 16 * 8 * 4 + 5 * 16 * 4 + 4 * 4  # operands from outside are constants


@pytest.mark.parametrize(
    ("tensor", "elements"),
    [
        (torch.zeros(3, 4), 3 * 4),
        (torch.zeros(3, 8)[:, ::2].t(), 3 * 4),
        (torch.zeros(3, 1).expand(3, 5), 3),
        (torch.zeros(10).unfold(0, 4, 2), 10),  # windows overlap by two
        (torch.zeros(0, 3), 0),
    ],
    ids=["dense", "strided", "broadcast", "overlapping", "empty"],
)
def test_distinct_bytes_are_those_of_distinct_addresses(tensor, elements):
    assert distinct_bytes(tensor) == elements * 4


def test_only_a_copy_that_the_cpu_does_not_make_is_left_out():
    def op(name, role):
        return Counted(name, Counter({(role, "read"): 8, ("activation", "written"): 8}))

    copy, cast, add = (
        op("aten._to_copy.default", "weight"),
        op("aten._to_copy.default", "activation"),
        op("add", "weight"),
    )
    assert without_copies_to_device([copy, add], [add]) == ([add], [add], (copy,))
    assert without_copies_to_device([copy, add], [copy, add])[2] == ()
    assert without_copies_to_device([cast, add], [add])[2] == ()
