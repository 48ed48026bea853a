"""A gradient is priced wherever the op is: forward and backward of every kind of op, and some by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fxmeter import annotate_module

INDEX = torch.int64


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


class WithGradient(nn.Module):
    """A function's value, and the gradients of all that is floating point in its arguments."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        with torch.enable_grad():
            args = [a.detach().requires_grad_() if a.is_floating_point() else a for a in args]
            out = self.function(*args)
            out = out[0] if isinstance(out, tuple) else out
            total = torch.view_as_real(out).sum() if out.is_complex() else out.sum()
            return torch.autograd.grad(total, [a for a in args if a.requires_grad], allow_unused=True)


X, IMAGE, ROWS = meta(2, 6, 8), meta(2, 8, 16, 16), meta(2, 6, dtype=INDEX)
VIDEO = IMAGE[None]
PICKED = meta(2, 6, 8, dtype=INDEX)
LSTM, GRU = nn.LSTM(8, 16, device="meta"), nn.GRU(8, 16, device="meta", bidirectional=True)


def words(text):
    return text.split()


ACTIVATIONS = words(
    "relu sigmoid tanh silu gelu elu celu selu leaky_relu hardtanh hardswish hardsigmoid softplus mish logsigmoid "
    "hardshrink softshrink tanhshrink softsign glu rrelu normalize"
)
ONE_OPERAND = words(
    "exp log sqrt rsqrt sin cos tan atan sinh cosh abs neg reciprocal erf erfc expm1 log1p log2 square exp2 asinh "
    "sinc logit lgamma sum mean prod var std amax amin norm median max min aminmax mode"
)
TWO_OPERANDS = words("add sub mul div pow maximum minimum atan2 fmod hypot logaddexp xlogy copysign cdist")
LOSSES = words("mse_loss l1_loss smooth_l1_loss huber_loss binary_cross_entropy binary_cross_entropy_with_logits")
OTHERS = {
    "addmm": (torch.addmm, meta(5), meta(3, 4), meta(4, 5)),
    "addbmm": (torch.addbmm, meta(3, 5), meta(2, 3, 4), meta(2, 4, 5)),
    "addmv": (torch.addmv, meta(3), meta(3, 4), meta(4)),
    "addr": (torch.addr, meta(3, 4), meta(3), meta(4)),
    "baddbmm": (torch.baddbmm, meta(2, 3, 5), meta(2, 3, 4), meta(2, 4, 5)),
    "mv": (torch.mv, meta(3, 4), meta(4)),
    "bilinear": (F.bilinear, meta(3, 4), meta(3, 5), meta(6, 4, 5), meta(6)),
    "cdist by rows": (lambda a, b: torch.cdist(a, b, p=1), X, X),
    "pdist": (F.pdist, meta(5, 8)),
    "cosine_similarity": (F.cosine_similarity, X, X),
    "softmax": (lambda x: x.softmax(-1), X),
    "log_softmax": (lambda x: x.log_softmax(-1), X),
    "logsumexp": (lambda x: x.logsumexp(-1), X),
    "cumsum": (lambda x: x.cumsum(-1), X),
    "cumprod": (lambda x: x.cumprod(-1), X),
    "topk": (lambda x: x.topk(2), X),
    "sort": (lambda x: x.sort(), X),
    "layer norm": (lambda x, w, b: F.layer_norm(x, (8,), w, b), X, meta(8), meta(8)),
    "rms norm": (lambda x, w: F.rms_norm(x, (8,), w), X, meta(8)),
    "group norm": (lambda x, w, b: F.group_norm(x, 2, w, b), IMAGE, meta(8), meta(8)),
    "batch norm": (lambda x, w, b: F.batch_norm(x, meta(8), meta(8), w, b), IMAGE, meta(8), meta(8)),
    "batch norm, training": (lambda x, w, b: F.batch_norm(x, meta(8), meta(8), w, b, True), IMAGE, meta(8), meta(8)),
    "instance norm": (F.instance_norm, IMAGE),
    "prelu": (F.prelu, IMAGE, meta(8)),
    "gelu tanh": (lambda x: F.gelu(x, approximate="tanh"), X),
    "dropout": (lambda x: F.dropout(x, 0.5), X),
    "conv1d": (F.conv1d, X, meta(4, 6, 3)),
    "conv2d": (F.conv2d, IMAGE, meta(4, 8, 3, 3), meta(4)),
    "conv3d": (F.conv3d, VIDEO, meta(4, 2, 3, 3, 3)),
    "conv_transpose2d": (F.conv_transpose2d, IMAGE, meta(8, 4, 3, 3)),
    "unfold": (lambda x: F.unfold(x, 3), IMAGE),
    "fold": (lambda x: F.fold(x, (4, 4), 2), meta(2, 12, 9)),
    "windows": (lambda x: x.unfold(1, 2, 1), X),
    "max_unpool2d": (lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), IMAGE),
    "fractional": (lambda x: F.fractional_max_pool2d(x, 2, output_size=4), IMAGE),
    "embedding": (F.embedding, ROWS, meta(10, 8)),
    "cross_entropy": (F.cross_entropy, meta(6, 10), meta(6, dtype=INDEX)),
    "cross_entropy of images": (F.cross_entropy, meta(2, 10, 4, 4), meta(2, 4, 4, dtype=INDEX)),
    "kl_div": (lambda a, b: F.kl_div(a, b, reduction="batchmean"), X, X),
    "triplet": (F.triplet_margin_loss, meta(5, 8), meta(5, 8), meta(5, 8)),
    "fft": (torch.fft.fft, X),
    "rfft": (torch.fft.rfft, X),
    "irfft": (lambda x: torch.fft.irfft(torch.fft.rfft(x)), X),
    "stft": (lambda x: torch.stft(x, 8, return_complex=True, window=meta(8)), meta(2, 64)),
    "gather": (lambda x, i: x.gather(1, i), X, PICKED),
    "take": (lambda x: x.take(meta(3, dtype=INDEX)), X),
    "index": (lambda x: x[:, [0, 1]], X),
    "index_put": (lambda x, s: x.index_put((meta(3, dtype=INDEX),), s, accumulate=True), X, meta(6, 8)),
    "index_add": (lambda x, s: x.index_add(1, meta(6, dtype=INDEX), s), X, X),
    "index_copy": (lambda x, s: x.index_copy(1, meta(6, dtype=INDEX), s), X, X),
    "scatter": (lambda x, i, s: x.scatter(1, i, s), X, PICKED, X),
    "scatter_reduce": (lambda x, i, s: x.scatter_reduce(1, i, s, "mean"), X, PICKED, X),
    "masked_fill": (lambda x: x.masked_fill(x > 0, 0), X),
    "slices": (lambda x: torch.cat([x[:, 1:3], x[:, :1], x[:, 2, None]], 1), X),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), IMAGE),
    "grid_sample": (lambda x, g: F.grid_sample(x, g, align_corners=False), IMAGE, meta(2, 5, 5, 2)),
    "affine_grid": (lambda t: F.affine_grid(t, [2, 3, 4, 4], align_corners=False), meta(2, 2, 3)),
    "inverse": (torch.linalg.inv, meta(4, 4)),
    "cholesky": (torch.linalg.cholesky, meta(4, 4)),
    "solve": (torch.linalg.solve, meta(4, 4), meta(4, 2)),
    "qr": (torch.linalg.qr, meta(4, 4)),
    "lstm": (LSTM, X),
    "gru": (GRU, X),
    "attention": (F.scaled_dot_product_attention, *[meta(2, 4, 6, 8)] * 3),
}
POOLS = {
    f"{kind}{rank}d": (lambda x, kind=kind, rank=rank: getattr(F, f"{kind}{rank}d")(x, 3), x)
    for kind in ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")
    for rank, x in ((1, X), (2, IMAGE), (3, VIDEO))
}
RESIZED = {
    mode: (lambda x, mode=mode: F.interpolate(x, scale_factor=2, mode=mode), x)
    for mode, x in (("nearest", IMAGE), ("nearest-exact", X), ("linear", X), ("bilinear", IMAGE), ("bicubic", IMAGE),
                    ("trilinear", VIDEO))
}  # fmt: skip
PADDED = {
    f"{mode} {x.dim()}": (lambda x, mode=mode: F.pad(x, (1, 1) * (x.dim() - 2), mode=mode), x)
    for mode in ("reflect", "replicate", "circular")
    for x in (X, IMAGE, VIDEO)
}
CASES = {
    **{name: (getattr(F, name), X) for name in ACTIVATIONS},
    **{name: (getattr(torch, name), X) for name in ONE_OPERAND},
    **{name: (getattr(torch, name), X, X) for name in TWO_OPERANDS},
    **{name: (getattr(F, name), X, X) for name in LOSSES},
    **OTHERS,
    **POOLS,
    **RESIZED,
    **PADDED,
}


@pytest.mark.parametrize("name", CASES)
def test_every_op_of_a_function_and_of_its_gradient_has_a_rule(name):
    function, *tensors = CASES[name]
    stage = annotate_module(WithGradient(function), *tensors, attention="eager")
    assert stage.uncosted == ()
    assert len(stage.ops) > 1


class Step(nn.Module):
    """A training step: loss and gradients of every parameter."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.conv = nn.Conv1d(16, 16, 3, padding=1)
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.head = nn.Linear(16, 50)

    def forward(self, tokens):
        with torch.enable_grad():
            x = self.embed(tokens)
            x = self.norm(x + self.conv(x.transpose(1, 2)).transpose(1, 2))
            x = x + self.attention(x, x, x)[0]
            F.cross_entropy(self.head(x).flatten(0, 1), tokens.flatten()).backward()


def test_a_training_step_has_the_flops_that_torch_counts_on_real_tensors():
    module, tokens = Step(), torch.randint(50, (2, 12))
    with FlopCounterMode(display=False) as counter:
        module(tokens)
    stage = annotate_module(module, tokens, attention="eager")
    assert stage.uncosted == ()
    assert stage.cost.matmul_flops == counter.get_total_flops() > 0


def vector(function, *tensors):
    stage = annotate_module(WithGradient(function), *tensors)
    forward = {op.op: op.cost.vector_flops for op in stage.ops}
    return {name.split(".")[1]: flops for name, flops in forward.items()}


def test_gradients_by_hand():
    assert vector(F.silu, X)["silu_backward"] == 9 * 2 * 6 * 8
    assert vector(lambda x: x.softmax(-1), X)["_softmax_backward_data"] == 4 * 2 * 6 * 8
    assert vector(F.embedding, ROWS, meta(10, 8))["embedding_dense_backward"] == 2 * 6 * 8
    norm = vector(lambda x, w, b: F.layer_norm(x, (8,), w, b), X, meta(8), meta(8))
    assert norm["native_layer_norm_backward"] == (9 + 1 + 2 + 1) * 2 * 6 * 8
    pool = vector(lambda x: F.avg_pool2d(x, 2), IMAGE)
    assert pool["avg_pool2d_backward"] == (2 * 2 + 1) * 2 * 8 * 8 * 8
    loss = vector(F.mse_loss, X, X)
    assert (loss["mse_loss"], loss["mse_loss_backward"]) == (
        (2 + 1) * 2 * 6 * 8 + 1,
        2 * (3 + 1) * 2 * 6 * 8,
    )  # into both operands
