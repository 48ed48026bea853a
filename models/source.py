"""What a model is called: a preset, a file, a Hub repository, or a function of the user's own code.

Decided by name alone, without reading anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fxmeter.models.errors import ModelError
from fxmeter.models.presets import Preset, preset, preset_names


@dataclass(frozen=True, slots=True)
class HubId:
    """A repository of the Hugging Face Hub, "owner/name"."""

    name: str


@dataclass(frozen=True, slots=True)
class Factory:
    """A function of the user's own code, "python:package.module:function"."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"python:{self.module}:{self.name}"


_HUB = "https://huggingface.co/"

Located: TypeAlias = Preset | Path | HubId | Factory


def locate(source: str | Path) -> Located:
    """The function that "python:" names, or the preset of that name, else the ``config.json`` at that path, else the
    Hub repository of that name.

    Raises ModelError where it can be none of them.
    """
    text = str(source)
    if text.startswith(_HUB):
        text = text.removeprefix(_HUB).rstrip("/")
    if not text.strip():
        raise ModelError("the model's name is empty; `fxmeter models` lists the presets")
    if text.startswith("python:"):
        module, _, name = text.removeprefix("python:").partition(":")
        if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
            raise ModelError(f"{text}: name a function of a module, as in python:package.module:factory")
        return Factory(module, name)
    if text.lower() in preset_names():
        return preset(text.lower())
    path = Path(text).expanduser()
    try:
        exists = path.exists()
    except OSError:
        exists = False
    if exists:
        file = path / "config.json" if path.is_dir() else path
        if file == path and not file.is_file():
            raise ModelError(f"{text} is no regular file; name a config.json, or the folder that holds it")
        if not file.is_file() and (path / "adapter_config.json").is_file():
            raise ModelError(
                f"{text} holds an adapter (adapter_config.json): give the model that it was trained for, which costs "
                "the same once the adapter is merged into it; `annotate` prices a model wrapped by PEFT as it runs"
            )
        if not file.is_file():
            raise ModelError(f"{text} has no config.json; name a folder that holds one, or the file itself")
        return file
    if text.endswith(".json") or text.startswith((".", "/", "~")):
        raise ModelError(f"no such file or folder: {text}")
    if text.count("/") == 1 and all(text.split("/")):
        return HubId(text)
    return preset(text)
