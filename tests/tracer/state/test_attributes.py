"""What a module keeps in an attribute is cache where the next pass reads and replaces it, whatever its shape."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fxmeter.annotators import annotate
from fxmeter.models import decode, prefill

WIDTH, FLOAT = 8, 4


class Kept(nn.Module):
    """Embeds tokens, and keeps something of them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(16, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.kept = None

    def forward(self, input_ids, **_):
        return self.mix(self.keep(self.embed(input_ids)))


class State(Kept):
    """A recurrent state [B, WIDTH]."""

    def keep(self, x):
        past = 0 if self.kept is None else self.kept
        self.kept = self.mix(x.mean(1) + past)
        return x + self.kept[:, None]


class StateOfLayersFirst(Kept):
    """One of [1, B, WIDTH], as an LSTM has it."""

    def keep(self, x):
        past = 0 if self.kept is None else self.kept
        self.kept = self.mix(x.mean(1)[None] + past)
        return x + self.kept[0][:, None]


class StateOfTwo(Kept):
    """Two tensors in a tuple."""

    def keep(self, x):
        one, two = (0, 0) if self.kept is None else self.kept
        self.kept = self.mix(x.mean(1) + one), self.mix(x.mean(1) * 2 + two)
        return x + sum(self.kept)[:, None]


class Table(Kept):
    """Rotary angles of [1, S, WIDTH], made once and longer where they must be: a batch of one could be taken for it."""

    def keep(self, x):
        length = x.shape[1]
        if self.kept is None or self.kept.shape[1] < length:
            self.kept = (
                torch.arange(length, device=x.device, dtype=x.dtype)[None, :, None].expand(1, length, WIDTH).cos()
            )
        return x * self.kept[:, :length]


class Aside(Kept):
    """What it made, for whoever asks: nobody here."""

    def keep(self, x):
        self.kept = x.softmax(-1)
        return x + self.kept


STATES = {State: WIDTH, StateOfLayersFirst: WIDTH, StateOfTwo: 2 * WIDTH, Table: 0, Aside: 0}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kind", STATES)
def test_state_is_what_a_pass_reads_and_replaces(kind, batch):
    with torch.device("meta"):
        model = kind()
    for scenario in (prefill(5, batch=batch), decode(5, batch=batch)):
        assert annotate(model, scenario).cost.kv_bytes == batch * STATES[kind] * FLOAT
    assert model.kept is None


@pytest.mark.parametrize("batch", [1, 3])
def test_a_step_reads_its_state_and_one_token_or_else_goes_through_all(batch):
    with torch.device("meta"):
        state, table = State(), Table()
    step = annotate(state, decode(5, batch=batch)).cost
    assert step.matmul_flops == 2 * (2 * batch * WIDTH * WIDTH)
    assert step.kv_read_bytes == 2 * batch * WIDTH * FLOAT  # the old one, and the new one
    assert annotate(table, decode(5, batch=batch)).cost.matmul_flops == 6 * (2 * batch * WIDTH * WIDTH)
