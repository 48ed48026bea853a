"""annotate_module: any module, any inputs, real weights untouched."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache

from fxmeter.annotators import annotate_module
from tests.tracer.tiny import LLAMA, real_model


class Block(nn.Module):
    """A hand-written GPT block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        b, s, h = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, s, 3, self.heads, h // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.out(y.transpose(1, 2).reshape(b, s, h))


def test_a_hand_written_block_eager_and_flash():
    b, s, h = 2, 16, 64
    products = 2 * b * s * h * 3 * h + 2 * b * s * h * h
    core = 2 * 2 * b * s * s * h
    for attention in ("eager", "flash"):
        stage = annotate_module(Block(h, 4), torch.empty(b, s, h), attention=attention)
        assert stage.cost.matmul_flops == products + core
        assert not stage.uncosted
    flash = annotate_module(Block(h, 4), torch.empty(b, s, h), attention="flash")
    assert [op.op for op in flash.ops].count("fxmeter.flash_attention.default") == 1
    exact = annotate_module(Block(h, 4), torch.empty(b, s, h), causal="exact")
    assert exact.cost.matmul_flops == products + 2 * 2 * b * h * (s * (s + 1) // 2)


def test_real_weights_are_neither_read_nor_changed():
    block = Block(64, 4)
    block.qkv.weight.data.fill_(float("nan"))
    before = {name: (p.data_ptr(), p.device, p.requires_grad) for name, p in block.named_parameters()}
    annotate_module(block, torch.empty(1, 3, 64))
    assert {name: (p.data_ptr(), p.device, p.requires_grad) for name, p in block.named_parameters()} == before
    assert block.training


def test_one_decoder_layer_of_a_hugging_face_model():
    model = real_model(LLAMA)
    hidden, angles = torch.empty(1, 7, 32), (torch.empty(1, 7, 8), torch.empty(1, 7, 8))
    stage = annotate_module(model.model.layers[1], hidden, position_embeddings=angles, attention="eager")
    widths = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48
    assert stage.cost.matmul_flops == 2 * 7 * widths + 2 * 2 * 4 * 7 * 7 * 8
    assert stage.cost.weight_bytes == sum(p.nbytes for p in model.model.layers[1].parameters())


def test_one_decoder_layer_with_a_cache_that_is_left_as_it_was():
    layer = real_model(LLAMA).model.layers[0]
    cache = DynamicCache()
    cache.update(torch.zeros(1, 2, 9, 8), torch.zeros(1, 2, 9, 8), 0)
    hidden, angles = torch.empty(1, 1, 32), (torch.empty(1, 1, 8), torch.empty(1, 1, 8))
    stage = annotate_module(layer, hidden, position_embeddings=angles, past_key_values=cache)
    token = 2 * 2 * 8 * 4
    assert stage.cost.kv_bytes == stage.cost.kv_read_bytes == (9 + 1) * token
    assert stage.cost.kv_write_bytes == token
    assert cache.get_seq_length() == 9
    assert cache.layers[0].keys.abs().sum() == 0


def test_weights_on_meta_and_real_ones_cost_the_same():
    real = Block(64, 4)
    with torch.device("meta"):
        meta = Block(64, 4)
    assert annotate_module(real, torch.empty(1, 3, 64)).cost == annotate_module(meta, torch.empty(1, 3, 64)).cost


@pytest.mark.parametrize("wrap", [dict, tuple, list, "dataclass"])
def test_whatever_holds_the_output_it_is_the_output_of_the_graph(wrap):
    class Halves(nn.Module):
        def forward(self, x):
            low, high = x * 2, x + 1
            if wrap == "dataclass":
                return Result(low, (high,))
            return {"low": low, "high": high} if wrap is dict else wrap([low, high])

    stage = annotate_module(Halves(), torch.empty(3, 4))
    (output,) = (node for node in stage.fx_graph.nodes if node.op == "output")
    assert len(output.all_input_nodes) == 2
    assert stage.cost.activation_write_bytes == 4 * (12 + 12)


@dataclass
class Result:
    total: torch.Tensor
    parts: tuple


def test_several_inputs_keywords_and_nested_outputs():
    class Mixer(nn.Module):
        def forward(self, a, pair, *, scale, extra):
            total = (a @ pair[0]) * scale + extra["bias"]
            return Result(total, (total.sum(), {"a": a}))

    a, w, bias = torch.empty(3, 4), torch.empty(4, 5), torch.empty(5)
    stage = annotate_module(Mixer(), a, (w, "unused"), scale=2.0, extra={"bias": bias})
    assert stage.cost.matmul_flops == 2 * 3 * 4 * 5
    assert stage.cost.vector_flops == 15 + 15 + 15
    assert {node.op for node in stage.fx_graph.nodes} == {"placeholder", "call_function", "output"}


def test_tied_weights_and_modules_called_twice():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(10, 4)
            self.head = nn.Linear(4, 10, bias=False)
            self.head.weight = self.embed.weight
            self.mix = nn.Linear(4, 4, bias=False)

        def forward(self, tokens):
            return self.head(self.mix(self.mix(self.embed(tokens))))

    stage = annotate_module(Tied(), torch.zeros(3, dtype=torch.long))
    assert stage.cost.weight_bytes == 4 * (10 * 4 + 4 * 4)
    assert stage.cost.weight_read_bytes == 4 * (3 * 4 + 2 * 4 * 4 + 10 * 4)
    assert stage.modules["mix"].cost.matmul_flops == 2 * 2 * 3 * 4 * 4
    assert stage.modules["mix"].times == 1
    assert stage.modules["embed"].cost.weight_bytes == 4 * 10 * 4
    assert stage.modules["head"].cost.weight_bytes == 0


def test_a_module_that_swaps_a_part_while_it_runs():
    class Swaps(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Linear(4, 4, bias=False)

        def forward(self, x):
            self.part = nn.Sequential(nn.Linear(4, 8, bias=False, device=x.device))
            return self.part(x)

    module = Swaps()
    part = module.part
    stage = annotate_module(module, torch.empty(3, 4))
    assert stage.cost.matmul_flops == 2 * 3 * 4 * 8
    assert stage.cost.weight_bytes == 4 * 4 * 4
    assert module.part is part


def test_buffers_are_weights_read_but_not_parameters_resident():
    class Shift(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("offset", torch.zeros(4))

        def forward(self, x):
            return x + self.offset

    cost = annotate_module(Shift(), torch.empty(3, 4)).cost
    assert cost.weight_read_bytes == 16
    assert cost.weight_bytes == 0


def test_an_unused_parameter_is_resident_and_shown_as_unread():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.spare = nn.Parameter(torch.zeros(7))

        def forward(self, x):
            return x + 1

    stage = annotate_module(Spare(), torch.empty(3))
    assert stage.cost.weight_bytes == 7 * 4
    assert [(op.op, op.cost.weight_bytes) for op in stage.ops if op.cost.weight_bytes] == [
        ("(parameters that no op reads)", 7 * 4)
    ]


def test_a_stack_of_layers_run_twice_is_recorded_in_full():
    class Looped(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4, bias=False) for _ in range(3)])

        def forward(self, x):
            for _ in range(2):
                for layer in self.layers:
                    x = layer(x)
            return x

    stage = annotate_module(Looped(), torch.empty(5, 4))
    assert stage.cost.matmul_flops == 2 * 3 * 2 * 5 * 4 * 4
    assert stage.cost.weight_bytes == 3 * 4 * 4 * 4
    assert stage.cost.weight_read_bytes == 2 * 3 * 4 * 4 * 4
    assert [stage.modules[f"layers.{i}"].cost.matmul_flops for i in range(3)] == [2 * 2 * 5 * 4 * 4] * 3
    assert stage.cost.matmul_flops == sum(m.own.matmul_flops * m.times for m in stage.modules.values())


def test_a_shared_module_works_for_whoever_calls_it():
    class Layer(nn.Module):
        def __init__(self, act):
            super().__init__()
            self.act = act
            self.mix = nn.Linear(4, 4, bias=False)

        def forward(self, x):
            return self.act(self.mix(x))

    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            act = nn.ReLU()
            self.layers = nn.ModuleList(Layer(act) for _ in range(3))

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    for fold in (True, False):
        stage = annotate_module(Stack(), torch.empty(5, 4), fold=fold)
        assert [stage.modules[f"layers.{i}"].cost.vector_flops for i in range(3)] == [5 * 4] * 3
        assert stage.cost.vector_flops == 3 * 5 * 4
