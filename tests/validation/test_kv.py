"""KV bytes equal the cache that a real pass leaves behind, for every kind of cache."""

from __future__ import annotations

import pytest
import torch

from validation.kv import KINDS, PROMPTS, check
from validation.real_runs import STAGES, entries_in, tensors_in

SLOW = ("gemma3n_text", "llama4_text", "deepseek_v4")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in KINDS])
def test_kv_bytes_equal_the_real_cache(name, prompt, stage):
    row = check(name, stage, prompt)
    assert row.predicted == row.measured > 0


class Keeper:
    """Holds tensors where nobody would look."""

    def __init__(self):
        keys = torch.zeros(2, 3)
        self.deep = {"a": [(keys, torch.tensor(5)), {"b": torch.zeros(4)}]}
        self.values = keys
        self.empty = torch.zeros(0)


def test_every_tensor_of_an_object_is_found_once_and_counters_are_no_entries():
    assert len(tensors_in(Keeper())) == 4
    assert sorted(t.nbytes for t in entries_in(Keeper())) == [4 * 4, 2 * 3 * 4]
