"""What a loaded model is, read off it for the line that names it."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedConfig

from fxmeter.annotators.stages.active import active_parameters
from fxmeter.models.deployment import ONE_DEVICE, Deployment
from fxmeter.models.formats import KvFormat, WeightFormats
from fxmeter.models.model_info import ModelInfo
from fxmeter.tracer.load.drafting import DraftingDecoder
from fxmeter.tracer.load.loading import EXAMPLE_INPUTS, LEFT_OUT, SOURCE
from fxmeter.tracer.run.encoder import encoder_of, fixed_positions, has_encoder
from fxmeter.tracer.run.prompt import config_of, find_config, is_encoder, max_encoder_positions, max_positions
from fxmeter.tracer.run.storage import checkpoint_bytes, formats_of, kv_of, resident_bytes


def model_info(model: nn.Module, tower: nn.Module | None = None, deployment: Deployment = ONE_DEVICE) -> ModelInfo:
    """Read off a loaded model and its config, off the vision tower beside it, and off how it is deployed."""
    inputs = getattr(model, EXAMPLE_INPUTS, None)
    config = PreTrainedConfig() if inputs is not None and find_config(model) is None else config_of(model)
    text = config.get_text_config(decoder=True)
    parameters = list(model.parameters())
    has_experts = any(hasattr(module, "num_experts") for module in model.modules())
    dtype = str(parameters[0].dtype if parameters else torch.get_default_dtype()).removeprefix("torch.")
    formats, kv = formats_of(model, deployment), kv_of(model, deployment)
    kind: Literal["decoder", "encoder", "encoder-decoder"] = "encoder" if is_encoder(model) else "decoder"
    layers = int(getattr(text, "num_hidden_layers", 0) or 0)
    if has_encoder(model):
        kind = "encoder-decoder"
        of_encoder = find_config(encoder_of(model)) or config
        layers += int(getattr(of_encoder.get_text_config(encoder=True), "num_hidden_layers", 0) or 0)
    return ModelInfo(
        name=str(getattr(model, "name_or_path", "") or config.model_type),
        model_type=str(config.model_type or type(model).__name__),
        dtype=dtype,
        parameters=sum(p.numel() for p in parameters),
        weight_bytes=resident_bytes(model, deployment),
        layers=layers,
        experts_implementation=getattr(text, "_experts_implementation", None) if has_experts else None,
        limit=max_positions(model),
        encoder_limit=max_encoder_positions(encoder_of(model)) if has_encoder(model) else None,
        vision_parameters=0 if tower is None else sum(p.numel() for p in tower.parameters()),
        active_parameters=active_parameters(model) if inputs is None else None,
        weights=dtype if formats is None else formats.label,
        kv=dtype if kv is None else kv.name,
        kernels=deployment.kernels,
        page_size=deployment.page_size,
        sharding={name: size for name, size in deployment.sizes.items() if size > 1},
        adds=_added_work(formats, kv),
        left_out=tuple(getattr(model, LEFT_OUT, ())),
        checkpoint_bytes=checkpoint_bytes(model, deployment),
        further_layers=len(model.mtp.layers) if isinstance(model, DraftingDecoder) else 0,
        encoder_positions=fixed_positions(model) if kind == "encoder-decoder" else None,
        kind=kind,
        config_sha256=_config_sha256(config, tower),
        source_sha256=getattr(model, SOURCE, ""),
    )


def _config_sha256(config: PreTrainedConfig, tower: nn.Module | None) -> str:
    fields = config.to_dict()
    for name in ("transformers_version", "_name_or_path"):
        fields.pop(name, None)
    parts = [] if tower is None else [(n, list(p.shape)) for n, p in tower.named_parameters()]
    text = json.dumps([fields, parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _added_work(weights: WeightFormats | None, kv: KvFormat | None) -> tuple[str, ...]:
    """What an engine does for the storage formats and nobody prices, in words."""
    of_weights = () if weights is None else weights.adds
    return of_weights if kv is None or not kv.adds else (*of_weights, kv.adds)
