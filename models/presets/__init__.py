"""Presets: one JSON file per public checkpoint, the fields of its `config.json` with their source.

The file name is the preset's name. Adding a checkpoint is adding a file; nothing is registered here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

from fxmeter.models.errors import ModelError
from fxmeter.models.names import Fields, near

__all__ = ["Preset", "preset", "preset_names"]


@dataclass(frozen=True, slots=True)
class Preset:
    """A public checkpoint, as far as its `config.json` goes.

    name               what `load_model` and the command line call it; also the file name
    source             whose `config.json` the fields are from
    parameters         elements of the text decoder's weights: embedding and head in, tied weights once, the
                       routers' correction biases in (transformers may hold those as buffers); MTP layers and
                       vision out
    parameters_source  the published figure that `parameters` rounds to
    config             fields of the `config.json`, `model_type` among them, without `auto_map` (it names
                       code); `quantization_config` is the checkpoint's storage format, where it has one
    vision             name of the vision tower that fxmeter.tracer.load.vision can build for it; empty if none
    notes              what differs from the public file, and why; often empty
    """

    name: str
    source: str
    parameters: int
    parameters_source: str
    config: Fields
    vision: str = ""
    notes: str = ""


def preset_names() -> tuple[str, ...]:
    """Names of all presets, sorted. Lists the folder; no file is opened."""
    entries = (entry.name for entry in files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(".json") for name in entries if name.endswith(".json")))


def preset(name: str) -> Preset:
    """The preset of this name, whatever its case; `ModelError` with the nearest names if there is none.

    The file is read at each call, so what a caller does to `config` stays with that caller.
    """
    names = {known.lower(): known for known in preset_names()}
    known = names.get(name.lower())
    if known is None:
        raise ModelError(f"no preset named {name!r}; {near(name, names)}`fxmeter models` lists them")
    return Preset(**json.loads(files(__name__).joinpath(f"{known}.json").read_text(encoding="utf-8")))
