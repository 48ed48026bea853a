"""Finding a device: by name, by alias, or in a file of one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from fxmeter.models.devices.device import Device, device_from
from fxmeter.models.errors import DeviceError
from fxmeter.models.names import near

LARGEST_FILE = 2**20


@cache
def device_names() -> tuple[str, ...]:
    """Names of all devices, sorted. Lists the folder; no file is opened."""
    entries = (entry.name for entry in files(__package__).iterdir())
    return tuple(sorted(name.removesuffix(".json") for name in entries if name.endswith(".json")))


def device(name: str | Path | Device) -> Device:
    """The device of that name, alias, or file (a ``.json`` as ``fxmeter calibrate`` writes it).

    Case and the choice of blanks, underscores or hyphens do not matter. Raises DeviceError with the nearest names.
    """
    if isinstance(name, Device):
        return name
    text = str(name)
    if text.endswith(".json"):
        return _from_file(Path(text).expanduser())
    wanted = "-".join(text.lower().replace("_", " ").split())
    if wanted in device_names():
        return _device(wanted)
    aliases = _aliases()
    if wanted in aliases:
        return _device(aliases[wanted])
    hint = near(wanted, [*device_names(), *aliases])
    raise DeviceError(f"no device named {text!r}; {hint}`fxmeter devices` lists them, and a device file works by path")


@cache
def _device(name: str) -> Device:
    return device_from(name, json.loads(files(__package__).joinpath(f"{name}.json").read_text(encoding="utf-8")))


@cache
def _aliases() -> Mapping[str, str]:
    return {alias: name for name in device_names() for alias in _device(name).aliases}


def _from_file(path: Path) -> Device:
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise DeviceError(f"{path} has more than {LARGEST_FILE:,} bytes; a device file has a few thousand")
        fields: Any = json.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise DeviceError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise DeviceError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise DeviceError(f"{path} holds a {type(fields).__name__}, not the object of fields that a device file is")
    return device_from(path.stem, fields)
