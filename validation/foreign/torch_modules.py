"""Modules that torch itself has, and attention, convolutions and signals in the forms that people write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from validation.foreign.call import Call

DIM, HEADS = 32, 4


class Of(nn.Module):
    """A function of modules and inputs, as a module."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args: Tensor) -> Any:
        return self.function(self, *args)


def _x(length: int = 12, batch: int = 2) -> Tensor:
    return torch.randn(batch, length, DIM)


def _layer(kind: type[nn.Module], **options: Any) -> nn.Module:
    return kind(DIM, HEADS, dim_feedforward=64, dropout=0.0, batch_first=True, **options)


def _causal(length: int) -> Tensor:
    return nn.Transformer.generate_square_subsequent_mask(length)


def _heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def _windowed(self: Any, x: Tensor) -> Tensor:
    """Local attention by blocks of four, each with the one before it."""
    q, k, v = (_heads(part).unflatten(2, (-1, 4)) for part in self.qkv(x).chunk(3, dim=-1))
    k, v = (torch.cat([F.pad(t, (0, 0, 0, 0, 1, 0))[:, :, :-1], t], dim=3) for t in (k, v))
    scores = torch.einsum("bhnid,bhnjd->bhnij", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bhnij,bhnjd->bhnid", scores.softmax(-1), v).flatten(2, 3).transpose(1, 2).flatten(2)


def _linear_attention(self: Any, x: Tensor) -> Tensor:
    q, k, v = (_heads(part) for part in self.qkv(x).chunk(3, dim=-1))
    q, k = F.elu(q) + 1, F.elu(k) + 1
    state = torch.einsum("bhnd,bhne->bhde", k, v)
    norm = torch.einsum("bhnd,bhd->bhn", q, k.sum(dim=2))
    return torch.einsum("bhnd,bhde->bhne", q, state) / norm[..., None]


def _alibi(self: Any, x: Tensor) -> Tensor:
    q, k, v = (_heads(part) for part in self.qkv(x).chunk(3, dim=-1))
    position = torch.arange(x.shape[1], device=x.device)
    slopes = 2.0 ** -torch.arange(1, HEADS + 1, device=x.device)
    bias = -(position[:, None] - position).abs() * slopes[:, None, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(x.dtype))


def _grouped(self: Any, x: Tensor) -> Tensor:
    q = _heads(self.q(x))
    k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in self.kv(x).chunk(2, dim=-1))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def _axial(self: Any, image: Tensor) -> Tensor:
    batch, height, width, dim = image.shape
    rows = self.rows(*[image.reshape(batch * height, width, dim)] * 3)[0].view_as(image)
    columns = image.transpose(1, 2).reshape(batch * width, height, dim)
    return rows + self.columns(*[columns] * 3)[0].view(batch, width, height, dim).transpose(1, 2)


def _fnet(self: Any, x: Tensor) -> Tensor:
    x = self.norm(x + torch.fft.fft2(x).real)
    return x + self.mlp(x)


def _long_convolution(self: Any, x: Tensor) -> Tensor:
    """Hyena: a filter as long as the sequence, by Fourier transform."""
    length = x.shape[1]
    filters = self.filters(torch.linspace(0, 1, length, device=x.device)[:, None])
    spectrum = torch.fft.rfft(x, n=2 * length, dim=1) * torch.fft.rfft(filters, n=2 * length, dim=0)
    return torch.fft.irfft(spectrum, n=2 * length, dim=1)[:, :length]


def _unet(self: Any, x: Tensor) -> Tensor:
    down = self.one(x)
    deep = self.two(F.max_pool2d(down, 2))
    return self.out(torch.cat([F.interpolate(deep, scale_factor=2, mode="bilinear"), down], dim=1))


def _prototypes(self: Any, support: Tensor, query: Tensor) -> Tensor:
    centres = self.encoder(support).view(4, 3, -1).mean(1)
    return -torch.cdist(self.encoder(query), centres).pow(2)


def _graph(self: Any, x: Tensor, edges: Tensor) -> Tensor:
    source, target = edges
    messages = self.message(x[source])
    total = torch.zeros_like(messages[: x.shape[0]]).index_add_(0, target, messages)
    degree = torch.zeros(x.shape[0], device=x.device).scatter_add_(0, target, torch.ones_like(target, dtype=x.dtype))
    return torch.relu(self.update(x) + total / degree.clamp(min=1)[:, None])


def _recommender(self: Any, dense: Tensor, sparse: Tensor) -> Tensor:
    """DLRM: bags of features, and products of each two."""
    vectors = torch.stack([self.dense(dense), *(table(sparse[i]) for i, table in enumerate(self.tables))], dim=1)
    products = torch.bmm(vectors, vectors.transpose(1, 2))
    rows, columns = torch.tril_indices(4, 4, offset=-1)
    return self.top(torch.cat([vectors[:, 0], products[:, rows, columns]], dim=1)).sigmoid()


def _step(self: Any, x: Tensor, target: Tensor) -> None:
    """A training step: gradients of every parameter."""
    with torch.enable_grad():
        F.cross_entropy(self.net(x), target).backward()


def _block(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU())


def _classifier() -> nn.Sequential:
    return nn.Sequential(
        _block(3, 8), nn.MaxPool2d(2), _block(8, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)
    )


def _trainee() -> nn.Sequential:
    layer = nn.Sequential(nn.Linear(DIM, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 10))
    return nn.Sequential(layer)


def _qkv() -> nn.Module:
    return nn.Linear(DIM, 3 * DIM)


def _image(channels: int = 3, side: int = 16) -> Tensor:
    return torch.randn(2, channels, side, side)


MODELS: Mapping[str, Callable[[], Call]] = {
    "nn.Transformer": lambda: Call(
        nn.Transformer(DIM, HEADS, 2, 2, 64, 0.0, batch_first=True), (_x(10), _x(6)), {"tgt_mask": _causal(6)}
    ),
    "nn.TransformerEncoder": lambda: Call(
        nn.TransformerEncoder(_layer(nn.TransformerEncoderLayer, norm_first=True), 2, enable_nested_tensor=False),
        (_x(),),
    ),
    "nn.TransformerEncoder, causal": lambda: Call(
        nn.TransformerEncoder(_layer(nn.TransformerEncoderLayer), 2, enable_nested_tensor=False), (_x(), _causal(12))
    ),
    "nn.TransformerDecoderLayer": lambda: Call(_layer(nn.TransformerDecoderLayer), (_x(6), _x(10))),
    "nn.MultiheadAttention": lambda: Call(nn.MultiheadAttention(DIM, HEADS, batch_first=True), (_x(), _x(), _x())),
    "nn.MultiheadAttention, weights not needed": lambda: Call(
        nn.MultiheadAttention(DIM, HEADS, batch_first=True), (_x(), _x(), _x()), {"need_weights": False}
    ),
    "nn.MultiheadAttention, other widths": lambda: Call(
        nn.MultiheadAttention(DIM, HEADS, kdim=16, vdim=24, batch_first=True, add_bias_kv=True),
        (_x(), torch.randn(2, 9, 16), torch.randn(2, 9, 24)),
    ),
    "nn.RNN": lambda: Call(nn.RNN(DIM, 16, num_layers=2, batch_first=True), (_x(),)),
    "nn.LSTM, bidirectional": lambda: Call(nn.LSTM(DIM, 16, num_layers=2, bidirectional=True), (_x(),)),
    "nn.LSTM with projection": lambda: Call(nn.LSTM(DIM, 16, proj_size=8), (_x(),)),
    "nn.GRU": lambda: Call(nn.GRU(DIM, 16, batch_first=True), (_x(),)),
    "nn.LSTMCell": lambda: Call(nn.LSTMCell(DIM, 16), (torch.randn(3, DIM),)),
    "nn.Bilinear": lambda: Call(nn.Bilinear(8, 6, 5), (torch.randn(3, 8), torch.randn(3, 6))),
    "nn.EmbeddingBag": lambda: Call(nn.EmbeddingBag(50, DIM), (torch.randint(50, (3, 7)),)),
    "convolutional classifier": lambda: Call(_classifier(), (_image(),)),
    "1-D convolutions, dilated and grouped": lambda: Call(
        nn.Sequential(nn.Conv1d(8, 16, 5, dilation=2), nn.GELU(), nn.Conv1d(16, 16, 3, groups=4), nn.AvgPool1d(2)),
        (torch.randn(2, 8, 40),),
    ),
    "3-D convolutions": lambda: Call(
        nn.Sequential(nn.Conv3d(2, 4, 3), nn.InstanceNorm3d(4), nn.MaxPool3d(2)), (torch.randn(1, 2, 8, 8, 8),)
    ),
    "transposed convolutions": lambda: Call(
        nn.Sequential(nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1), nn.Tanh()), (_image(8),)
    ),
    "depthwise separable": lambda: Call(
        nn.Sequential(nn.Conv2d(8, 8, 3, groups=8, padding=1), nn.Hardswish(), nn.Conv2d(8, 16, 1)), (_image(8),)
    ),
    "U-Net": lambda: Call(Of(_unet, one=_block(3, 8), two=_block(8, 16), out=nn.Conv2d(24, 2, 1)), (_image(),)),
    "pixel shuffle": lambda: Call(nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)), (_image(),)),
    "local attention": lambda: Call(Of(_windowed, qkv=_qkv()), (_x(),)),
    "linear attention": lambda: Call(Of(_linear_attention, qkv=_qkv()), (_x(),)),
    "ALiBi": lambda: Call(Of(_alibi, qkv=_qkv()), (_x(),)),
    "grouped queries": lambda: Call(Of(_grouped, q=nn.Linear(DIM, DIM), kv=nn.Linear(DIM, DIM)), (_x(),)),
    "axial attention": lambda: Call(
        Of(_axial, **{n: nn.MultiheadAttention(DIM, HEADS, batch_first=True) for n in ("rows", "columns")}),
        (torch.randn(2, 6, 5, DIM),),
    ),
    "FNet": lambda: Call(
        Of(_fnet, norm=nn.LayerNorm(DIM), mlp=nn.Sequential(nn.Linear(DIM, 64), nn.GELU(), nn.Linear(64, DIM))), (_x(),)
    ),
    "long convolution (Hyena)": lambda: Call(Of(_long_convolution, filters=nn.Linear(1, DIM)), (_x(),)),
    "prototypical network": lambda: Call(
        Of(_prototypes, encoder=nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))),
        (torch.randn(12, 8), torch.randn(6, 8)),
    ),
    "graph convolution": lambda: Call(
        Of(_graph, message=nn.Linear(8, 16), update=nn.Linear(8, 16)), (torch.randn(10, 8), torch.randint(10, (2, 30)))
    ),
    "DLRM": lambda: Call(
        Of(
            _recommender,
            dense=nn.Linear(6, 8),
            tables=nn.ModuleList(nn.EmbeddingBag(20, 8) for _ in range(3)),
            top=nn.Linear(8 + 6, 1),
        ),
        (torch.randn(2, 6), torch.randint(20, (3, 2, 4))),
    ),
    "training step of a perceptron": lambda: Call(
        Of(_step, net=_trainee()), (torch.randn(4, DIM), torch.randint(10, (4,)))
    ),
    "training step of a convolutional classifier": lambda: Call(
        Of(_step, net=_classifier()), (_image(), torch.randint(5, (2,))), training=True
    ),
}
