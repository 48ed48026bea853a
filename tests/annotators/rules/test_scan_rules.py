"""The FLOPs of a scan are those of its recurrence, counted op by op where transformers runs it.

The counter and its table are this file's own. Where transformers computes something twice, or more than the algorithm
asks for, the difference is a named term.
"""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fxmeter.annotators import annotate_module
from fxmeter.tracer.operators.scans import (
    gated_delta_rule,
    lightning_attention,
    linear_recurrence,
    mlstm,
    selective_scan,
    selective_state_update,
    state_space_dual,
    wkv,
)

ONE = {"add", "sub", "mul", "div", "neg", "exp", "rsqrt", "maximum", "abs", "rsub", "pow", "sqrt"}
MORE = {"clamp": 2, "softplus": 3, "sigmoid": 4, "silu": 5}
OF_INPUT = {"sum": 1, "cumsum": 1, "max": 1, "log_sigmoid_forward": 4}


class Counted(TorchDispatchMode):
    """FLOPs of every op that runs, batched products 2 per multiply-accumulate; views, copies and masks are none."""

    def __init__(self) -> None:
        super().__init__()
        self.matmul = self.vector = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1].removesuffix("_")
        floats = [a for a in args if isinstance(a, Tensor) and a.is_floating_point()]
        if name == "bmm":
            self.matmul += 2 * out.numel() * args[0].shape[-1]
        elif name == "linalg_solve_triangular":
            rows = args[0].shape[-1]
            self.vector += (rows - 1) * args[1].numel()
        elif name == "mean":
            self.vector += args[0].numel() + out.numel()
        elif floats and name in OF_INPUT:
            self.vector += OF_INPUT[name] * args[0].numel()
        elif floats and (name in ONE or name in MORE):
            self.vector += MORE.get(name, 1) * out.numel()
        return out


def counted(function, *args, **kwargs):
    """(matmul FLOPs, vector FLOPs) of a call on the CPU."""
    with torch.no_grad(), Counted() as counter:
        function(*args, **kwargs)
    return counter.matmul, counter.vector


def ruled(operator, *args):
    """The same by the operator's rule."""

    class Call(torch.nn.Module):
        def forward(self, *tensors):
            given = iter(tensors)
            return operator(*(next(given) if isinstance(a, Tensor) else a for a in args))

    stage = annotate_module(Call(), *(a for a in args if isinstance(a, Tensor)))
    (op,) = [op for op in stage.ops if op.op.startswith("fxmeter.")]
    return op.cost.matmul_flops, op.cost.vector_flops


def from_transformers(family, name):
    code = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    function = getattr(code, name)
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    return cells["func"].cell_contents if "func" in cells else function


def rand(*shape):
    return torch.rand(*shape)


B, H, K, V, C = 2, 3, 8, 5, 16


@pytest.mark.parametrize("l2norm", [False, True])
def test_the_delta_rule_token_by_token(l2norm):
    length = 7
    q, k, v, g, beta = rand(B, length, H, K), rand(B, length, H, K), rand(B, length, H, V), -rand(B, length, H), None
    beta = rand(B, length, H)
    loop = from_transformers("qwen3_next", "torch_recurrent_gated_delta_rule")
    matmul, vector = counted(loop, q, k, v, g=g, beta=beta, use_qk_l2norm_in_kernel=l2norm)
    ours = ruled(gated_delta_rule, q, k, v, g, beta, None, None, l2norm)
    tokens = B * length * H
    assert ours[0] == tokens * 3 * 2 * K * V
    assert sum(ours) == matmul + vector


@pytest.mark.parametrize("length", [C, 2 * C, C + 3])
def test_the_delta_rule_by_chunks(length):
    q, k, v, g = rand(B, length, H, K), rand(B, length, H, K), rand(B, length, H, V), -rand(B, length, H)
    beta = rand(B, length, H)
    chunks = -(-length // C)
    loop = from_transformers("qwen3_next", "torch_chunk_gated_delta_rule")
    theirs = counted(loop, q, k, v, g=g, beta=beta, chunk_size=C, use_qk_l2norm_in_kernel=True)
    ours = ruled(gated_delta_rule, q, k, v, g, beta, None, C, True)
    the_same_exponentials_twice = B * H * chunks * C
    assert ours == (theirs[0], theirs[1] - the_same_exponentials_twice)


def test_the_delta_rule_with_a_decay_for_each_channel():
    length = 2 * C
    q, k, v, g = rand(B, length, H, K), rand(B, length, H, K), rand(B, length, H, V), -rand(B, length, H, K)
    beta = rand(B, length, H)
    loop = from_transformers("kimi_linear", "recurrent_kimi_delta_attention")
    given = {"g": g, "beta": beta, "initial_state": None, "output_final_state": True, "use_qk_l2norm_in_kernel": True}
    assert sum(ruled(gated_delta_rule, q, k, v, g, beta, None, None, True)) == sum(counted(loop, q, k, v, **given))
    loop = from_transformers("kimi_linear", "chunk_kimi_delta_attention")
    matmul, vector = counted(loop, q, k, v, chunk_size=C, **given)
    ours = ruled(gated_delta_rule, q, k, v, g, beta, None, C, True)
    chunks = B * H * 2
    solves = chunks * C * (C - 1) * (K + V)
    inverse = chunks * sum(i + 2 * i * i for i in range(1, C))  # row by row, then the sum with the unit matrix
    inverse += chunks * C * C + 2 * chunks * C * C * (K + V)
    sign = chunks * C * C
    the_same_exponentials_twice = chunks * C * K
    assert sum(ours) - solves == matmul + vector - inverse - sign - the_same_exponentials_twice


@pytest.mark.parametrize("length", [8, 24, 20])
def test_state_space_duality(length):
    groups, width, state, chunk = 1, 6, 4, 8
    x, dt, A = rand(B, length, H, width), rand(B, length, H), -rand(H)
    b, c, D, bias = rand(B, length, groups, state), rand(B, length, groups, state), rand(H), rand(H)
    chunks = -(-length // chunk)
    loop = from_transformers("mamba2", "mamba2_chunk_scan")
    theirs = counted(loop, x, dt, A, b, c, chunk, D=D, dt_bias=bias, dt_softplus=True, return_final_states=True)
    ours = ruled(state_space_dual, x, dt, A, b, c, chunk, D, bias, None, True, [0.0, float("inf")])
    repeated = 2 * B * chunks * chunk * chunk * state * (H - groups)
    passing = 2 * B * H * (chunks + 1) ** 2 * width * state
    assert theirs[0] - ours[0] == repeated + passing
    clamp_that_does_nothing = 2 * B * length * H
    recurrence, all_pairs_of_chunks = B * H * chunks * (2 * width * state + 1), 2 * B * H * (chunks + 1) ** 2
    skipped_on_padding = 2 * B * (chunks * chunk - length) * H * width
    extra = clamp_that_does_nothing + all_pairs_of_chunks - recurrence + skipped_on_padding
    assert theirs[1] - ours[1] == extra


def test_a_selective_scan():
    length, channels, state = 6, 10, 4
    u, dt, A = rand(B, channels, length), rand(B, channels, length), -rand(channels, state)
    b, c, D = rand(B, state, length), rand(B, state, length), rand(channels)
    bias, z = rand(channels), rand(B, channels, length)
    loop = from_transformers("mamba", "mamba_selective_scan")
    theirs = counted(loop, u, dt, A, b, c, D=D, z=z, delta_bias=bias, delta_softplus=True)
    assert ruled(selective_scan, u, dt, A, b, c, D, z, bias, True) == theirs
    elements = B * channels * length
    assert theirs == (2 * elements * state, elements * (6 * state + 1 + 3 + 2 + 6))


def test_one_step_of_a_selective_scan():
    width, state = 6, 4
    held, x, dt = rand(B, H, width, state), rand(B, H, width), rand(B, H, width)
    A, b, c, D, bias = -rand(H, width, state), rand(B, 1, state), rand(B, 1, state), rand(H, width), rand(H, width)
    loop = from_transformers("mamba2", "mamba2_selective_state_update")
    theirs = counted(loop, held, x, dt, A, b, c, D=D, z=x, dt_bias=bias, dt_softplus=True)
    assert ruled(selective_state_update, held, x, dt, A, b, c, D, x, bias, True) == theirs


def test_wkv():
    length, channels = 5, 8
    decay, first, k, v = rand(channels), rand(channels), rand(B, length, channels), rand(B, length, channels)
    loop = from_transformers("rwkv", "rwkv_linear_attention_cpu")
    matmul, vector = counted(loop, decay, first, k, v)
    sums_made_twice, start = 2 * B * length * channels, B * channels
    assert ruled(wkv, decay, first, k, v, None, None, None) == (matmul, vector - sums_made_twice - start)


def test_a_linear_recurrence():
    x, a = rand(B, 5, 8), rand(B, 5, 8)
    assert ruled(linear_recurrence, x, a, None) == (0, 2 * B * 5 * 8)


def test_mlstm_token_by_token():
    from transformers.models.xlstm import modeling_xlstm

    q, k, v, gate = rand(B, H, K), rand(B, H, K), rand(B, H, V), rand(B, H, 1)
    states = rand(B, H, K, V), rand(B, H, K), rand(B, H, 1)
    step = modeling_xlstm.mlstm_recurrent_step_native
    theirs = counted(step, q, k, v, gate, gate, *states)
    tensors = [x[:, :, None] for x in (q, k, v)]
    assert ruled(mlstm, *tensors, gate, gate, *states, 1, 1e-6) == theirs


def test_mlstm_by_chunks():
    from transformers.models.xlstm import modeling_xlstm

    length = 2 * C
    q, k, v, gate = rand(B, H, length, K), rand(B, H, length, K), rand(B, H, length, V), rand(B, H, length)
    loop = modeling_xlstm.mlstm_chunkwise_native_autograd
    theirs = counted(loop, q, k, v, gate, gate, chunk_size=C)
    assert ruled(mlstm, q, k, v, gate, gate, None, None, None, C, 1e-6) == theirs


@pytest.mark.parametrize(("length", "past"), [(5, False), (8, False), (19, False), (1, True), (3, True)])
def test_lightning_attention(length, past):
    """The module of transformers but for what it does around its loop."""
    from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention

    from validation.small_configs import small_config

    config = small_config("minimax")
    module = MiniMaxLightningAttention(config, config.layer_types.index("linear_attention"))
    heads, width = module.num_attention_heads, module.head_dim
    state = rand(B, heads, width, width) if past else None

    class Memory:
        def get_linear_cache(self, index):
            return state

        def set_linear_cache(self, index, value):
            pass

    theirs = counted(module, rand(B, length, config.hidden_size), None, None, Memory())
    q = rand(B, heads, length, width)
    ours = ruled(lightning_attention, q, q, q, rand(heads, 1, 1), state, config.block_size)
    inner = heads * width
    norm = B * length * (inner + inner + 1 + 1 + 1 + inner + inner)  # square, mean, eps, rsqrt, scale, weight
    around = B * length * 5 * 3 * inner + norm + B * length * (4 * inner + inner)  # silu of qkv; gate
    assert ours[0] == theirs[0]  # the projections are plain products, not batched ones
    assert ours[1] == theirs[1] - around
