"""Where a model's code scans over time, one operator of :mod:`tracer.operators.scans` in place of its Python loop.

transformers marks the functions that a kernel package can take over ("chunk_gated_delta_rule" of fla,
"selective_scan_fn" of mamba_ssm, ...). Those marks say what a function computes and fix its signature, whatever the
model: ``KERNELS`` has one adapter for each. Loops that nothing marks are in ``UNMARKED`` by place, with the reason.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from fxmeter.tracer.graph.values import AnyCache, Function
from fxmeter.tracer.operators.indexers import qsa_indexer_forward
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
from fxmeter.tracer.private import Name, OpOverload, kernel_of, require
from fxmeter.tracer.run.patches.sdpa import needs_gradients
from fxmeter.tracer.state.tree import walk

_CODE = "transformers.models.{0}.modeling_{0}"


def _adapter(op: OpOverload, *, state: str = "", alone: bool = True, **defaults: object) -> Callable[..., object]:
    """A function that is called as a kernel is, and runs ``op``.

    What the operator does not take is dropped, and ``defaults`` stand in for what is not given. Where the kernel
    returns its last state only if the argument ``state`` says so, the result is otherwise the output ``alone``, or with
    None.
    """
    names = {argument.name for argument in op._schema.arguments}

    def call(*args: object, **kwargs: object) -> object:
        out = op(*args, **{name: value for name, value in {**defaults, **kwargs}.items() if name in names})
        if not state or kwargs.get(state):
            return out
        return out[0] if alone else (out[0], None)

    return call


def _delta_rule(**defaults: object) -> Callable[..., object]:
    return _adapter(gated_delta_rule, state="output_final_state", alone=False, **defaults)


KERNELS: dict[str, Callable[..., object]] = {
    "selective_scan_fn": _adapter(selective_scan, state="return_last_state"),
    "selective_state_update": _adapter(selective_state_update),
    "mamba_chunk_scan_combined": _adapter(state_space_dual, state="return_final_states"),
    "chunk_gated_delta_rule": _delta_rule(chunk_size=64),
    "fused_recurrent_gated_delta_rule": _delta_rule(),
    "chunk_kda": _delta_rule(chunk_size=64),
    "fused_recurrent_kda": _delta_rule(),
}
"""The kernel that transformers says a function stands for → the same signature, by one operator."""


def _rwkv_linear_attention(
    time_decay: Tensor,
    time_first: Tensor,
    key: Tensor,
    value: Tensor,
    state: Any = None,
    return_state: bool = False,
) -> tuple[Tensor, Any]:
    before = (None, None, None) if state is None else state
    out, *after = wkv(time_decay, time_first, key, value, *before)
    return out, after if return_state or state is not None else None


def _rnn_scan(
    self: Any,
    hidden_states: Tensor,
    recurrent_gate: Tensor,
    reset: Tensor,
    recurrent_states: Tensor | None,
    acc_dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    return linear_recurrence(hidden_states, recurrent_gate * ~reset, recurrent_states)


def _mlstm_backend(
    self: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    igate: Tensor,
    fgate: Tensor,
    c_initial: Tensor | None = None,
    n_initial: Tensor | None = None,
    m_initial: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    chunk = self.config.chunk_size if query.shape[2] > 1 else 1
    out, *state = mlstm(query, key, value, igate, fgate, c_initial, n_initial, m_initial, chunk, float(self.config.eps))
    return out, tuple(state)


def _lightning_attention_forward(
    self: Any,
    hidden_states: Tensor,
    position_embeddings: Any,
    attention_mask: Tensor | None,
    past_key_values: AnyCache = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    code = sys.modules[type(self).__module__]
    batch, length = hidden_states.shape[:2]
    qkv = code.apply_mask_to_padding_states(self.act_fn(self.qkv_proj(hidden_states)), attention_mask)
    qkv = qkv.reshape(batch, length, self.num_attention_heads, 3 * self.head_dim).transpose(1, 2)
    before = None if past_key_values is None else past_key_values.get_linear_cache(self.layer_idx)
    query, key, value = qkv.split(self.head_dim, dim=-1)
    out, state = lightning_attention(query, key, value, self.slope_rate, before, self.block_size)
    out = self.norm(out.transpose(1, 2).reshape(batch, length, self.num_attention_heads * self.head_dim))
    out = self.out_proj(torch.sigmoid(self.output_gate(hidden_states)) * out)
    if past_key_values is not None:
        past_key_values.set_linear_cache(self.layer_idx, state)
    return out, state


UNMARKED: dict[Name, Function] = {
    Name(_CODE.format("rwkv"), "rwkv_linear_attention", "record its CUDA kernel, which predates the marks"): (
        _rwkv_linear_attention
    ),
    Name(_CODE.format("recurrent_gemma"), "RecurrentGemmaRglru._rnn_scan", "record a loop that has no kernel"): (
        _rnn_scan
    ),
    Name(_CODE.format("xlstm"), "xLSTMBackend.forward", "record whichever kernel or native loop it chooses"): (
        _mlstm_backend
    ),
    # loops written out in the middle of a forward, over blocks and over queries: the rest of the forward is repeated
    Name(_CODE.format("minimax"), "MiniMaxLightningAttention.forward", "record its loop over blocks"): (
        _lightning_attention_forward
    ),
    Name(_CODE.format("qwen4_exp"), "Qwen4ExpTextQSAIndexer.forward", "record its loop over queries"): (
        qsa_indexer_forward
    ),
}
"""A function or method of transformers' modelling code → the same by one operator."""


@contextmanager
def scans_as_operators(model: nn.Module) -> Iterator[None]:
    """Inside the block the scans of ``model``'s code are operators; afterwards the code is as it was."""
    modules = {type(module).__module__ for _, module in walk(model)}
    with ExitStack() as stack:
        for name in sorted(modules):
            if name.startswith("transformers.models."):
                for owner, attribute, replacement in _scans_of(sys.modules[name]):
                    stack.enter_context(patch.object(owner, attribute, replacement))
        yield


@functools.cache
def _scans_of(module: ModuleType) -> tuple[tuple[Any, str, Function], ...]:
    """What to replace in a modelling module: its owner, its name, and the replacement."""
    found: list[tuple[Any, str, Function]] = []
    for name, value in list(vars(module).items()):
        if inspect.isfunction(value) and (adapter := KERNELS.get(kernel_of(value))) is not None:
            found.append((module, name, _unless_gradients(adapter, value)))
    for place, replacement in UNMARKED.items():
        if place.module == module.__name__:
            require(place)
            name, _, attribute = place.attribute.rpartition(".")
            owner = getattr(module, name) if name else module
            found.append((owner, attribute, _unless_gradients(replacement, getattr(owner, attribute))))
    return tuple(found)


def _unless_gradients(replacement: Function, original: Function) -> Function:
    """``replacement``, but ``original`` where a gradient is taken through it: an operator of ours has none."""

    def call(*args: Any, **kwargs: Any) -> Any:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        return (original if needs_gradients(*tensors) else replacement)(*args, **kwargs)

    return call
