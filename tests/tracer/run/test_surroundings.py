"""What is going on around a call, or begins in it, neither changes its figures nor hides some of it."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from fxmeter import annotate, annotate_module, decode
from fxmeter.models.errors import TraceError

ROWS, WIDTH = 3, 8
LINEAR = 2 * ROWS * WIDTH * WIDTH


class Calls(nn.Module):
    """Runs a function of itself and its input; ``lin`` is a layer for it."""

    def __init__(self, forward, lin=None):
        super().__init__()
        self.lin, self.run = nn.Linear(WIDTH, WIDTH) if lin is None else lin, forward

    def forward(self, x):
        return self.run(self, x)


def x():
    return torch.randn(ROWS, WIDTH)


def no_compiler(*_):
    raise AssertionError("something was compiled")


def compiled_in_forward(module, x):
    return torch.compile(module.lin, backend=no_compiler)(x)


@functools.partial(torch.compile, backend=no_compiler)
def compiled_before(x):
    return x @ x.T


COMPILED = {
    "a part": (
        lambda: Calls(lambda m, x: m.lin(x), torch.compile(nn.Linear(WIDTH, WIDTH), backend=no_compiler)),
        LINEAR,
    ),
    "in forward": (lambda: Calls(compiled_in_forward), LINEAR),
    "a function": (lambda: Calls(lambda _, x: compiled_before(x)), 2 * ROWS * ROWS * WIDTH),
}


@pytest.mark.parametrize("kind", COMPILED)
def test_nothing_is_compiled_while_a_call_is_recorded(kind):
    make, flops = COMPILED[kind]
    assert annotate_module(make(), x()).cost.matmul_flops == flops


def test_autocast_around_a_call_changes_nothing_and_is_said_to():
    plain = annotate_module(nn.Linear(WIDTH, WIDTH), x())
    with torch.autocast("cpu", torch.bfloat16):
        around = annotate_module(nn.Linear(WIDTH, WIDTH), x())
        assert torch.is_autocast_enabled("cpu")
    assert around.cost == plain.cost
    assert "torch.autocast to bfloat16 changes nothing" in str(around.recording.assumptions)


def small_llama():
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4)
    )


def test_autocast_around_a_pass_changes_nothing_and_is_said_to():
    model = small_llama()
    with torch.autocast("cpu", torch.bfloat16):
        around = annotate(model, decode(16))
    assert around.cost == annotate(model, decode(16)).cost
    assert "torch.autocast to bfloat16 changes nothing" in str(around.recording.assumptions)


def test_a_model_with_data_computes_nothing_and_is_as_it_was_meanwhile():
    model, seen = small_llama(), []

    def look(module, args, out):
        seen.append(
            (
                out.untyped_storage().device.type,
                "forward" in vars(model.model.layers[1]),
                model.config._attn_implementation,
            )
        )

    model.lm_head.register_forward_hook(look)
    implementation = model.config._attn_implementation
    annotate(model, decode(16), fold=True)
    assert set(seen) == {("meta", False, implementation)}


def in_a_thread(module, x):
    out = []
    thread = Thread(target=lambda: out.append(module.lin(x)))
    thread.start()
    thread.join()
    return out[0]


def test_a_thread_that_a_forward_starts_is_refused_by_its_line():
    with pytest.raises(
        TraceError, match=r"starts a thread, and ops of other threads .*\(test_surroundings.py, line \d+\)"
    ):
        annotate_module(Calls(in_a_thread), x())
    assert Thread.start.__module__ == "threading"


def test_a_part_that_runs_in_a_thread_that_was_there_before_is_refused():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        with pytest.raises(TraceError, match="lin ran in another thread"):
            annotate_module(Calls(lambda m, x: pool.submit(m.lin, x).result()), x())


def test_padding_of_an_encoder_of_torch_s_is_a_mask():
    layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True), 3).eval()
    hidden, padding = torch.randn(2, 5, WIDTH), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    stage = annotate_module(layers, hidden, src_key_padding_mask=padding, attention="eager")
    row = 2 * (
        4 * WIDTH * WIDTH + 2 * WIDTH * 16 + 2 * 5 * WIDTH
    )  # projections, the two layers after, scores and values
    assert stage.cost.matmul_flops == 3 * 2 * 5 * row
    assert torch.backends.mha.get_fastpath_enabled()


def packed(module, x):
    return nn.utils.rnn.pack_padded_sequence(x, torch.tensor([2, 5, 3]), batch_first=True, enforce_sorted=False)


PACKED = {
    "in forward": (lambda m, x: nn.utils.rnn.pad_packed_sequence(m.lin(packed(m, x))[0])[0], lambda x: x),
    "given": (lambda m, x: m.lin(x)[1], lambda x: packed(None, x)),
}


@pytest.mark.parametrize("kind", PACKED)
def test_packed_sequences_have_the_products_of_their_own_lengths(kind):
    forward, given = PACKED[kind]
    module, hidden = Calls(forward, nn.GRU(WIDTH, 6, batch_first=True)), given(torch.randn(3, 5, WIDTH))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(hidden)
    stage = annotate_module(module, hidden)
    assert stage.cost.matmul_flops == counter.get_total_flops() == 2 * (2 + 5 + 3) * 3 * 6 * (WIDTH + 6)
    assert not stage.uncosted


def noted(module, x):
    with torch.profiler.record_function("a part"):
        torch._assert_async(x.sum() != 0)
        return module.lin(x)


def test_what_the_host_notes_costs_nothing_and_has_a_rule():
    stage = annotate_module(Calls(noted), x())
    assert (stage.cost.matmul_flops, stage.uncosted) == (LINEAR, ())
