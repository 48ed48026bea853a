"""The encoder of an encoder-decoder model: what it reads, how long that is, and what it hands to the decoder.

Everything is asked of transformers' own encoder: what kind of input it takes (``main_input_name``), how many positions
so many frames become, and what it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from fxmeter.models.errors import ScenarioError
from fxmeter.models.names import Kwargs
from fxmeter.models.scenario import Scenario, agreed_encoder_len
from fxmeter.models.sizes import LARGEST_SIZE
from fxmeter.tracer.run.failures import as_trace_errors
from fxmeter.tracer.run.forward import device_of, forward_of
from fxmeter.tracer.run.prompt import find_config, run_unrecorded
from fxmeter.tracer.state.session import one_recording, records_now
from fxmeter.tracer.state.tree import derived, walk

Kwargs = Kwargs

_POSITIONS_OF = ("_get_feat_extract_output_lengths", "_get_subsampling_output_length")
"""Methods of transformers' speech models: frames or samples → positions."""
_FEATURES = ("num_mel_bins", "input_feat_per_channel")
"""Names that configs give the features of an audio frame."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A run of an encoder: its arguments, what it returned, and how many positions that has."""

    arguments: Kwargs
    output: Any
    positions: int


def has_encoder(model: nn.Module) -> bool:
    """Whether a model is an encoder and a decoder that attends to what the first one read."""
    two_parts = bool(getattr(find_config(model), "is_encoder_decoder", False))
    return two_parts and "encoder_outputs" in forward_of(model).names


def encoder_of(model: nn.Module) -> nn.Module:
    """The encoder of an encoder-decoder model."""
    owner: Any = next(module for _, module in walk(model) if hasattr(module, "get_encoder"))
    encoder: nn.Module = owner.get_encoder()
    return encoder


def fixed_positions(model: nn.Module) -> int | None:
    """The positions that an encoder always has, as its config says; None where it takes more or fewer.

    Of a picture they follow from its size. Of anything else a config fixes them where its code refuses one fewer.
    """
    with nullcontext() if records_now() else one_recording():
        return derived(model, _fixed_positions)


def with_encoder_len(model: nn.Module, scenario: Scenario) -> Scenario:
    """The scenario with the positions that the model's decoder attends to, from its config where that fixes them.

    Raises ScenarioError where nobody says how many there are, where the config says otherwise, or where there is no
    encoder.
    """
    name = type(model).__name__
    if not has_encoder(model):
        if scenario.stage == "encode" or scenario.encoder_len is not None:
            raise ScenarioError(f"{name} is no encoder-decoder model: it has no encode stage and no encoder_len")
        return scenario
    how = "encoder_len (--encoder-len N)"
    agreed = agreed_encoder_len(name, scenario.encoder_positions, fixed_positions(model), option="encoder_len", how=how)
    return scenario if scenario.stage == "encode" else replace(scenario, encoder_len=agreed)


def run_encoder(
    model: nn.Module, batch: int, positions: int | None, around: Callable[[], AbstractContextManager[Any]]
) -> Encoded:
    """Run the encoder on inputs that become so many positions (None: on a picture), for what it returns.

    Raises ScenarioError where nothing that fits can be made for it.
    """
    encoder = encoder_of(model)
    failures = []
    for arguments in _inputs(encoder, batch, positions):
        try:
            output = run_unrecorded(model, partial(dict, arguments), around, part=encoder)
        except Exception as error:  # features before time, or time before features: the code says which
            failures.append(error)
            continue
        found = int(output[0].shape[1])
        if positions in (None, found):
            return Encoded(arguments, output, found)
        raise ScenarioError(f"no input of {type(encoder).__name__} becomes {positions:,} positions; {found:,} would be")
    raise failures[0]


def _inputs(encoder: nn.Module, batch: int, positions: int | None) -> Iterator[Kwargs]:
    """Inputs that may be what an encoder takes, the usual order of dimensions first."""
    name = str(getattr(encoder, "main_input_name", "input_ids"))
    for shape in _shapes(encoder, name, batch, positions):
        dtype = torch.long if name == "input_ids" else next(encoder.parameters()).dtype
        yield {name: torch.zeros(shape, dtype=dtype, device=device_of(encoder))}


def _shapes(encoder: nn.Module, name: str, batch: int, positions: int | None) -> Sequence[tuple[int, ...]]:
    config: Any = find_config(encoder)
    features = next((getattr(config, field) for field in _FEATURES if getattr(config, field, None)), None)
    if name == "input_ids" and positions is not None:
        return [(batch, positions)]
    if name == "pixel_values":
        size = config.image_size
        return [(batch, config.num_channels, *((size, size) if isinstance(size, int) else size))]
    if name == "input_values" and positions is not None:
        return [(batch, _frames(encoder, positions))]
    if name == "input_features" and features and positions is not None:
        frames = _frames(encoder, positions)
        return [(batch, features, frames), (batch, frames, features)]
    raise ScenarioError(
        f"{type(encoder).__name__} reads {name}, and fxmeter cannot tell their shape from the config; annotate_module "
        "prices one call of any module"
    )


def _frames(encoder: nn.Module, positions: int) -> int:
    """The most frames that become so many positions, as feature extractors pad them."""
    owners = ((module, name) for _, module in walk(encoder) for name in _POSITIONS_OF if hasattr(module, name))
    owner, name = next(owners, (encoder, None))
    if name is None:
        raise ScenarioError(f"{type(encoder).__name__} does not say how many positions its frames become")
    become = getattr(owner, name)
    low, high = positions, LARGEST_SIZE
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if int(become(torch.tensor(middle))) <= positions else (low, middle - 1)
    return low


def _fixed_positions(model: nn.Module) -> int | None:
    encoder = encoder_of(model)
    if getattr(encoder, "main_input_name", None) == "pixel_values":
        with as_trace_errors(model):
            return run_encoder(model, 1, None, nullcontext).positions
    most = getattr(find_config(encoder), "max_source_positions", None)
    if not isinstance(most, int) or most < 2 or not _takes(model, most) or _takes(model, most - 1):
        return None
    return most


def _takes(model: nn.Module, positions: int) -> bool:
    try:
        run_encoder(model, 1, positions, nullcontext)
    except Exception:  # whatever the code says of a length that it does not take
        return False
    return True
