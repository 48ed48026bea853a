"""A model in one line, as every report and document names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from fxmeter.annotators.stages.active import active_parameters
from fxmeter.models.deployment import ONE_DEVICE, Deployment
from fxmeter.models.formats import KvFormat, WeightFormats
from fxmeter.tracer.load.loading import LEFT_OUT
from fxmeter.tracer.load.parts import LeftOut
from fxmeter.tracer.run.encoder import encoder_of, has_encoder
from fxmeter.tracer.run.prompt import (
    PositionLimit,
    config_of,
    find_config,
    is_encoder,
    max_encoder_positions,
    max_positions,
)
from fxmeter.tracer.run.storage import formats_of, resident_bytes


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model in one line. ``parameters`` counts tied ones once, ``active_parameters`` those that one token reads.

    ``weights`` names the storage format of the weights, ``weight_bytes`` what they take in it, and ``adds`` the work
    that an engine does for it and that is not priced. ``left_out`` is what else the checkpoint holds. ``layers`` are
    the decoder's, and the encoder's where there is one; ``limit`` and ``encoder_limit`` the positions that each has.
    """

    name: str
    model_type: str
    dtype: str
    parameters: int
    weight_bytes: int
    layers: int
    experts_implementation: str | None
    limit: PositionLimit | None
    encoder_limit: PositionLimit | None
    vision_parameters: int
    active_parameters: int | None
    weights: str = ""
    kv: str = ""
    kernels: str = "transformers"
    page_size: int | None = None
    sharding: Mapping[str, int] = field(default_factory=dict)
    adds: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    kind: Literal["decoder", "encoder", "encoder-decoder"] = "decoder"

    @property
    def max_positions(self) -> int | None:
        """The longest context that the config allows."""
        return None if self.limit is None else self.limit.positions

    def warnings(self, tokens: int, encoder_len: int = 0) -> tuple[str, ...]:
        """What to say of a context of ``tokens``, and of so many positions of the encoder: that it goes beyond the
        model's positions, where it does."""
        asked = ((tokens, "tokens", self.limit), (encoder_len, "positions of the encoder", self.encoder_limit))
        return tuple(
            f"{count:,} {what} are more than this model's {limit.field}, {limit.positions:,}"
            for count, what, limit in asked
            if limit is not None and count > limit.positions
        )


def model_info(model: nn.Module, tower: nn.Module | None = None, deployment: Deployment = ONE_DEVICE) -> ModelInfo:
    """Read off a loaded model and its config, off the vision tower beside it, and off how it is deployed."""
    config = config_of(model)
    text = config.get_text_config(decoder=True)
    parameters = list(model.parameters())
    has_experts = any(hasattr(module, "num_experts") for module in model.modules())
    dtype = str(parameters[0].dtype).removeprefix("torch.")
    formats = formats_of(model, deployment)
    kind: Literal["decoder", "encoder", "encoder-decoder"] = "encoder" if is_encoder(model) else "decoder"
    layers = int(getattr(text, "num_hidden_layers", 0) or 0)
    if has_encoder(model):
        kind = "encoder-decoder"
        of_encoder = find_config(encoder_of(model)) or config
        layers += int(getattr(of_encoder.get_text_config(encoder=True), "num_hidden_layers", 0) or 0)
    return ModelInfo(
        name=str(getattr(model, "name_or_path", "") or config.model_type),
        model_type=str(config.model_type),
        dtype=dtype,
        parameters=sum(p.numel() for p in parameters),
        weight_bytes=resident_bytes(model, deployment),
        layers=layers,
        experts_implementation=getattr(text, "_experts_implementation", None) if has_experts else None,
        limit=max_positions(model),
        encoder_limit=max_encoder_positions(encoder_of(model)) if has_encoder(model) else None,
        vision_parameters=0 if tower is None else sum(p.numel() for p in tower.parameters()),
        active_parameters=active_parameters(model),
        weights=dtype if formats is None else formats.label,
        kv=dtype if deployment.kv is None else deployment.kv.name,
        kernels=deployment.kernels,
        page_size=deployment.page_size,
        sharding={name: size for name, size in deployment.sizes.items() if size > 1},
        adds=_added_work(formats, deployment.kv),
        left_out=tuple(getattr(model, LEFT_OUT, ())),
        kind=kind,
    )


def _added_work(weights: WeightFormats | None, kv: KvFormat | None) -> tuple[str, ...]:
    """What an engine does for the storage formats and nobody prices, in words."""
    of_weights = () if weights is None else weights.adds
    return of_weights if kv is None or not kv.adds else (*of_weights, kv.adds)
