"""Layers that somebody has changed: whatever their code reads, the pass is the one that is recorded in full."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable

import pytest
import torch
import transformers.models.llama.modeling_llama as modeling
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from transformers import DynamicCache, LlamaConfig, LlamaModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaMLP

from fxmeter.annotators import annotate_module
from validation.coverage_type import compare_folding

IDS = torch.ones(2, 6, dtype=torch.long)


def _config() -> LlamaConfig:
    return LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=5, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=32,
    )  # fmt: skip


def _more(x: torch.Tensor, odd: bool) -> torch.Tensor:
    """What makes a layer dearer than another."""
    return x @ x.transpose(-1, -2) @ x if odd else x


class Counter:
    """Counts the calls of all layers that have it; every second call is dearer."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return _more(x, self.calls % 2 == 0)

    def after(self, module, args, out):
        return self(out)


class Indexed(LlamaDecoderLayer):
    """A subclass that reads its index."""

    def forward(self, hidden_states, **options):
        out = super().forward(hidden_states, **options)
        return _more(out, self.self_attn.layer_idx % 2 == 0)


class Table(LlamaMLP):
    """A part that reads a table by an index of its own."""

    def __init__(self, config, index) -> None:
        super().__init__(config)
        self.layer_id, self.windows = index, (0, 1, 0, 0, 1)

    def forward(self, x):
        return _more(super().forward(x), self.windows[self.layer_id])


class Aside(LlamaMLP):
    """A part that keeps what it made for whoever asks."""

    def forward(self, x):
        self.aside = super().forward(x)
        return self.aside + 1


def _swap(model: nn.Module, index: int, layer: Callable[[int], nn.Module]) -> None:
    model.layers[index] = layer(index)


def _activate(mlp: nn.Module, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Put a function in the place of the activation module."""
    del mlp.act_fn
    mlp.act_fn = function


def _run(mlp: nn.Module, odd: bool) -> None:
    mlp.forward = types.MethodType(lambda mlp, x: _more(mlp.down_proj(mlp.up_proj(x)), odd), mlp)


CHANGES: dict[str, Callable[[nn.Module, int, Counter], object]] = {
    "nothing": lambda model, index, counter: None,
    "a subclass that reads its index": lambda m, i, c: _swap(m, i, lambda i: Indexed(m.config, i)),
    "a part that reads a table": lambda m, i, c: setattr(m.layers[i], "mlp", Table(m.config, i)),
    "a part that keeps what it made": lambda m, i, c: setattr(m.layers[i], "mlp", Aside(m.config)),
    "a hook": lambda m, i, c: m.layers[i].mlp.register_forward_hook(c.after),
    "a hook before": lambda m, i, c: m.layers[i].register_forward_pre_hook(lambda layer, args: (c(args[0]),)),
    "a counter": lambda m, i, c: _activate(m.layers[i].mlp, c),
    "a partial": lambda m, i, c: _activate(m.layers[i].mlp, functools.partial(Counter.__call__, c)),
    "a function": lambda m, i, c: _activate(m.layers[i].mlp, lambda x: c(x)),
    "a helper's method": lambda m, i, c: _activate(m.layers[i].mlp, c.__call__),
    "a forward": lambda m, i, c: _run(m.layers[i].mlp, i % 2 == 1),
    "a shared part": lambda m, i, c: setattr(m.layers[i], "mlp", m.layers[0].mlp),
    "another size": lambda m, i, c: setattr(m.layers[i].mlp, "up_proj", nn.Linear(16, 32, bias=True)),
}


class Own(nn.Module):
    """Somebody's own stack: what its layers keep aside it adds up."""

    def __init__(self, model: LlamaModel, *, sums: bool) -> None:
        super().__init__()
        self.embed_tokens, self.layers, self.rotary = model.embed_tokens, model.layers, model.rotary_emb
        self.config, self.sums = model.config, sums

    def forward(self, ids):
        x = self.embed_tokens(ids)
        positions = self.rotary(x, torch.arange(ids.shape[1])[None])
        for layer in self.layers:
            x = layer(x, position_embeddings=positions)
        asides = [layer.mlp.aside for layer in self.layers if isinstance(layer.mlp, Aside)]
        return x, sum(aside.softmax(-1).mean() for aside in asides) if self.sums else x * 2


def _build(changes: list[str], own: bool, sums: bool) -> nn.Module:
    model, counter = LlamaModel(_config()), Counter()
    for index, change in enumerate(changes):
        CHANGES[change](model, index, counter)
    return Own(model, sums=sums) if own else model


def _compared(build: Callable[[], nn.Module], *args: object, **options: object) -> str:
    """As it is recorded unless told otherwise, and in full: each of a model of its own, whose counters are at zero."""
    stage, full = (annotate_module(build(), *args, fold=fold, **options) for fold in (None, False))
    return compare_folding(stage, full)


STACKS = {
    "changes": st.lists(st.sampled_from(list(CHANGES)), min_size=5, max_size=5)
    | st.sampled_from(list(CHANGES)).map(lambda change: [change] * 5),
    "own": st.booleans(),
    "sums": st.booleans(),
    "attention": st.sampled_from(["eager", "flash"]),
}
QUIET = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.too_slow]}


def _hold(changes: list[str], own: bool, sums: bool, attention: str) -> None:
    assert _compared(lambda: _build(changes, own, sums), IDS, attention=attention) == "equal"


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_all_layers_have_is_what_it_is_in_full(change):
    _hold([change] * 5, own=False, sums=False, attention="eager")


@settings(max_examples=8, **QUIET)
@given(**STACKS)
def test_a_stack_of_layers_with_changes_is_what_it_is_in_full(changes, own, sums, attention):
    _hold(changes, own, sums, attention)


@pytest.mark.slow
@settings(max_examples=400, **QUIET)
@given(**STACKS)
def test_many_stacks_of_layers_with_changes_are_what_they_are_in_full(changes, own, sums, attention):
    _hold(changes, own, sums, attention)


def test_layers_without_changes_are_recorded_once():
    assert annotate_module(_build(["nothing"] * 5, own=False, sums=False), IDS).modules["layers.0"].times == 5


def test_a_method_put_on_a_class_after_a_first_look_is_seen(monkeypatch):
    model, counter = LlamaModel(_config()), Counter()
    plain = annotate_module(model, IDS)
    forward = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda mlp, x: counter(forward(mlp, x)))
    stage = annotate_module(model, IDS)
    tokens, width = 6, 16
    assert stage.cost.matmul_flops == plain.cost.matmul_flops + 2 * 2 * (2 * 2 * tokens * tokens * width)


def test_a_function_put_where_a_layer_finds_it_is_seen(monkeypatch):
    counter, repeat = Counter(), modeling.apply_rotary_pos_emb
    monkeypatch.setattr(modeling, "apply_rotary_pos_emb", lambda q, k, *rest: repeat(counter(q), k, *rest))
    stage, full = (annotate_module(LlamaModel(_config()), IDS, fold=fold) for fold in (None, False))
    assert not stage.recording.folds()
    assert stage.cost.matmul_flops != full.cost.matmul_flops  # the counter goes on: five calls and five


def test_a_hook_around_every_module_is_seen():
    counter = Counter()

    def after(module, args, out):
        return counter(out) if isinstance(module, LlamaMLP) else out

    handle = register_module_forward_hook(after)
    try:
        stage = annotate_module(LlamaModel(_config()), IDS)
    finally:
        handle.remove()
    assert not stage.recording.folds()


class Uneven(DynamicCache):
    """A cache of one's own, which knows who asks: the first two layers pay more."""

    def update(self, key_states, value_states, layer_idx, *args, **options):
        k, v = super().update(key_states, value_states, layer_idx, *args, **options)
        return (_more(k, layer_idx < 2), v)


def test_a_cache_of_ones_own_may_tell_layers_apart():
    stage, full = (
        annotate_module(LlamaModel(_config()), IDS, past_key_values=Uneven(), attention="eager", fold=fold)
        for fold in (None, False)
    )
    assert compare_folding(stage, full) == "equal"
