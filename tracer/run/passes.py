"""From a model and a scenario to a recording: inputs, a cache that holds the context, one pass."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache as cached
from functools import partial
from itertools import chain, count
from typing import Any, get_args

import torch
from torch import Tensor, nn

from fxmeter.models.choices import Logits
from fxmeter.models.deployment import ONE_DEVICE, Deployment
from fxmeter.models.errors import ScenarioError, TraceError
from fxmeter.models.names import Kwargs
from fxmeter.models.scenario import Scenario, decode
from fxmeter.tracer.capture.folding import Folding, NoObserver
from fxmeter.tracer.capture.recorder import Recorder
from fxmeter.tracer.capture.recording import Recording
from fxmeter.tracer.graph.values import AnyCache
from fxmeter.tracer.private import Cache
from fxmeter.tracer.run.calls import declare_inputs, folded, recorded
from fxmeter.tracer.run.encoder import encoder_of, has_encoder, run_encoder, with_encoder_len
from fxmeter.tracer.run.failures import as_trace_errors
from fxmeter.tracer.run.forward import device_of, forward_of, head_given, head_of, require_tokens
from fxmeter.tracer.run.patches.attention import Attention, asks_for_a_mask, attention_of
from fxmeter.tracer.run.patches.autocast import autocast_without_effect
from fxmeter.tracer.run.patches.devices import OneDevice, devices_answered
from fxmeter.tracer.run.patches.scan_hooks import scans_as_operators
from fxmeter.tracer.run.prompt import (
    empty_cache,
    find_config,
    is_encoder,
    max_encoder_positions,
    max_positions,
    run_prompt,
)
from fxmeter.tracer.run.storage import as_deployed, stored_as
from fxmeter.tracer.run.suspects import suspects
from fxmeter.tracer.run.twin import home_of
from fxmeter.tracer.serving.experts import choosing
from fxmeter.tracer.serving.latent import absorbing
from fxmeter.tracer.state.attributes import Held, attributes_restored
from fxmeter.tracer.state.session import one_recording
from fxmeter.tracer.state.tree import unchanging, walk


def record(
    model: nn.Module,
    scenario: Scenario,
    *,
    attention: Attention = "flash",
    logits: Logits = "all",
    fold: bool | None = None,
    input_ids: Tensor | None = None,
    cache: AnyCache = None,
    deployment: Deployment = ONE_DEVICE,
) -> Recording:
    """Record one pass of a causal language model, on whatever device it lives (normally ``meta``).

    Args:
        model: what :func:`fxmeter.load_model` returns, or a transformers model with data, to execute its graph again.
        scenario: batch and lengths of the pass; it has one step.
        attention: the model's own "eager" code, or one fused "flash" core per layer.
        logits: of "all" positions, of the "last" one, or of "none".
        fold: record identical layers once.
        input_ids: [B, S_q]; made here unless given.
        cache: one that holds ``scenario.past_len`` tokens already; made here unless given.
        deployment: the formats in which weights and cache are stored, and the kernels that run.

    Returns:
        The recorded ``graph``, each node with its :class:`fxmeter.tracer.graph.nodes.NodeMeta`, and what it reads:
        weights, cache, storages.

    Raises:
        TraceError: the model's code cannot run without data.
        ScenarioError: ``input_ids`` of another shape, or logits that the model cannot leave out.
    """
    shape = (scenario.batch, scenario.query_len)
    if input_ids is not None and tuple(input_ids.shape) != shape:
        raise ScenarioError(f"input_ids are {tuple(input_ids.shape)}; the scenario asks for {shape}")
    with one_recording(), unchanging(model):
        require_tokens(model)
        scenario = with_encoder_len(model, scenario)
        if scenario.stage == "decode" and is_encoder(model):
            raise ScenarioError(
                f"{type(model).__name__} is an encoder: it keeps no cache and has no decode step; price a prefill (a "
                "model that can be either is a decoder where its config says is_decoder true)"
            )
        wanted = _Pass(model, scenario, attention, logits, input_ids, cache, deployment.kernels == "serving")
        if not deployment.sharded:
            return as_deployed(_recorded(wanted, fold, deployment), model, deployment)
        from fxmeter.tracer.graph.shares import sharing
        from fxmeter.tracer.shard.process_groups import name_groups  # paid for only here
        from fxmeter.tracer.shard.rank import PADDING, rank_of

        with rank_of(model, deployment) as rank, sharing() as shares:
            recording = _recorded(replace(wanted, model=rank), fold, deployment, whole=model)
            padding = getattr(rank, PADDING)
            assumed = (*recording.assumptions, *([] if padding is None else [padding]))
            recording = replace(recording, shared=shares.last, assumptions=assumed)
            name_groups(recording.graph)
            return as_deployed(recording, rank, deployment)


def _recorded(wanted: _Pass, fold: bool | None, deployment: Deployment, whole: nn.Module | None = None) -> Recording:
    """``wanted`` recorded. Of a rank of a ``whole`` model those layers are alike that are so in the whole; and only
    those whose weights are stored in the same formats."""
    model, scenario, cache = wanted.model, wanted.scenario, wanted.cache
    answered = devices_answered(model, home_of(whole or model))
    with unchanging(model), autocast_without_effect() as seen, answered as taken:
        stored = stored_as(model, deployment)
        folding = Folding.of(model, fold, like=whole, stored=stored)
        try:
            recording = _attempt(wanted, folding)
        except TraceError as failure:
            if cache is not None:  # the attempt has changed it
                raise
            try:
                recording = _attempt(replace(wanted, careful=True), folding)
            except TraceError:
                if (beyond := _beyond(model, scenario)) is not None:
                    raise TraceError(f"{type(model).__name__}: {beyond}, and its code cannot run them") from failure
                config = find_config(model)
                odd = "" if config is None else suspects(config.to_dict(), None, str(failure))
                raise TraceError(f"{failure}{odd}") from failure.__cause__
    return replace(recording, assumptions=(*recording.assumptions, *seen, *taken))


def _beyond(model: nn.Module, scenario: Scenario) -> str | None:
    """That a pass has more tokens than the model has positions, where it has."""
    limits = [] if scenario.stage == "encode" else [(scenario.kv_len, max_positions(model), "tokens")]
    if has_encoder(model):
        limit = max_encoder_positions(encoder_of(model))
        limits.append((scenario.encoder_positions or 0, limit, "positions of the encoder"))
    over = [(count, limit, what) for count, limit, what in limits if limit is not None and count > limit.positions]
    return next(
        (f"{count:,} {what} are more than its {limit.positions:,} positions" for count, limit, what in over), None
    )


@dataclass(frozen=True, slots=True)
class _Pass:
    """A pass of a language model to record; ``served`` by the kernels of an engine, or as transformers runs it.

    A ``careful`` attempt is for code that needs a mask or forgets devices.
    """

    model: nn.Module
    scenario: Scenario
    attention: Attention
    logits: Logits
    input_ids: Tensor | None
    cache: AnyCache
    served: bool
    careful: bool = False


def _attempt(wanted: _Pass, folding: Folding | None) -> Recording:
    """Folded as far as that can be. The first try changes the cache that was given, others a copy of what it was."""
    given = isinstance(wanted.cache, Cache) and folding is not None
    before = copy.deepcopy(wanted.cache) if given else None
    caches = chain([wanted.cache], (copy.deepcopy(before) if given else wanted.cache for _ in count()))
    return folded(lambda folding: _record(replace(wanted, cache=next(caches)), folding), folding)


def _record(wanted: _Pass, folding: Folding | None) -> Recording:
    model, scenario, cache, input_ids = wanted.model, wanted.scenario, wanted.cache, wanted.input_ids
    masked = wanted.careful and wanted.attention == "flash" and asks_for_a_mask(model)
    device = device_of(model)
    with ExitStack() as stack:
        stack.enter_context(attention_of(model, wanted.attention, masked=masked))
        stack.enter_context(scans_as_operators(model))
        stack.enter_context(_evaluating(model))
        if wanted.served:
            stack.enter_context(choosing(model))
        if wanted.served and scenario.stage == "decode":
            stack.enter_context(absorbing(model))
        before = stack.enter_context(attributes_restored(model))
        if wanted.careful:
            stack.enter_context(OneDevice(device))
        encoded = None
        if has_encoder(model):
            with as_trace_errors(model):
                run = run_encoder(model, scenario.batch, scenario.encoder_positions, partial(_once_each, folding))
            if scenario.stage == "encode":
                encoder = encoder_of(model)
                return recorded(model, (), run.arguments, folding=folding, part=encoder)
            encoded = run.output
        if cache is None:
            cache = filled_cache(model, scenario, folding, encoded)
        held = Held(cache, before, cached(partial(_states, model, scenario.batch, encoded)))
        if input_ids is None:
            keeps = scenario.past_len == 0 or any(held.tensors())
            length = scenario.query_len if keeps else scenario.kv_len  # without a cache every step is a whole prefill
            input_ids = torch.zeros((scenario.batch, length), dtype=torch.long, device=device)
        kwargs = _forward_arguments(model, input_ids, cache, wanted.logits, encoded)
        if wanted.logits != "all" and "logits_to_keep" not in kwargs and input_ids.shape[-1] > 1:
            stack.enter_context(head_given(model, slice(-1, None) if wanted.logits == "last" else slice(0, 0)))
        return recorded(model, (), kwargs, folding=folding, cache=held, output=_logits_of)


def filled_cache(model: nn.Module, scenario: Scenario, folding: Folding | None, encoded: Any = None) -> Any:
    """A cache of the model's own class that holds ``scenario.past_len`` tokens, and what the decoder keeps of
    ``encoded``, its encoder's output; None where the model makes its own."""
    if scenario.past_len == 0:
        return empty_cache(model)

    def arguments(prompt: Tensor, cache: AnyCache) -> Kwargs:
        return _forward_arguments(model, prompt, cache, "last", encoded, strict=False)

    return run_prompt(model, scenario.batch, scenario.past_len, arguments, partial(_once_each, folding))


def _once_each(folding: Folding | None) -> AbstractContextManager[Any]:
    """Identical layers run once, and nobody watches."""
    return nullcontext() if folding is None else folding.active(NoObserver())


def _states(model: nn.Module, batch: int, encoded: Any) -> frozenset[tuple[str, str]]:
    """(path, name) of the attributes that are state: what one pass put there the next one reads, and replaces.

    A table is read and stays; what is left for whoever asks is replaced and not read.
    """
    device = device_of(model)
    with attributes_restored(model) as before:
        cache = filled_cache(model, decode(6, batch=batch), None, encoded)
        first = {(path, name): tensor for path, _, name, tensor in before.new_tensors()}
        recorder = Recorder(model)
        nodes = {key: recorder.placeholder("_".join(key), tensor, "cache") for key, tensor in first.items()}
        token = torch.zeros((batch, 1), dtype=torch.long, device=device)
        kwargs = _forward_arguments(model, token, cache, "last", encoded, strict=False)
        declare_inputs(recorder, (), kwargs)
        versions = {key: tensor._version for key, tensor in first.items()}
        with as_trace_errors(model), recorder.watching():
            model(**kwargs)
        now = {(path, name): tensor for path, _, name, tensor in before.new_tensors()}
        return frozenset(
            key
            for key, tensor in first.items()
            if nodes[key].users and (now.get(key) is not tensor or tensor._version != versions[key])
        )


def _forward_arguments(
    model: nn.Module, tokens: Tensor, cache: AnyCache, logits: Logits, encoded: Any = None, *, strict: bool = True
) -> Kwargs:
    forward = forward_of(model)
    alone = is_encoder(model)
    kwargs: Kwargs = {"input_ids": tokens}
    if not alone or "use_cache" in forward.names:
        kwargs["use_cache"] = not alone
    if encoded is not None:
        kwargs = {"encoder_outputs": encoded, "decoder_input_ids": tokens, "use_cache": True}
    if forward.cache is not None:
        kwargs[forward.cache] = cache
    if logits not in get_args(Logits):
        raise ScenarioError(f"logits must be {' or '.join(map(repr, get_args(Logits)))}, not {logits!r}")
    if logits != "all":
        if "logits_to_keep" in forward.names:
            kwargs["logits_to_keep"] = 1 if logits == "last" else slice(0, 0)  # taken as it is where it is no number
        elif strict and head_of(model) is None and not (logits == "last" and tokens.shape[-1] == 1):
            raise ScenarioError(
                f"{type(model).__name__} cannot leave out the logits of some positions (its forward takes no "
                "logits_to_keep, and it has no output embeddings); use logits='all'"
            )
    return kwargs


def _logits_of(out: Any) -> Any:
    logits = out.get("logits") if isinstance(out, dict) else getattr(out, "logits", None)
    return out if logits is None else logits


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Inside the block no module is in training mode; afterwards each is as before."""
    training = [module for _, module in walk(model) if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True
