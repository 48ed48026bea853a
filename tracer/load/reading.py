"""The fields of a ``config.json``, wherever it is: a preset, a file, or the Hugging Face Hub."""

from __future__ import annotations

import codecs
import json
import os
import re
import socket
import threading
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from fxmeter.models.errors import ModelError
from fxmeter.models.names import Document, Fields
from fxmeter.models.presets import Preset, preset, preset_names
from fxmeter.models.source import Factory, HubId, locate

_LARGEST_FILE = 2**24
HUB_SECONDS = 2.0
"""How long the Hub has to answer a connection: its client tries again and again, for up to half a minute."""


def read_fields(source: str | Path) -> tuple[Document, str]:
    """The fields of the ``config.json`` behind ``source`` as they stand there, and what to call it in messages."""
    found = locate(source)
    if isinstance(found, Preset):
        return dict(found.config), f"preset {found.name}"
    if isinstance(found, HubId):
        return _hub_config(found.name), found.name
    if isinstance(found, Factory):
        raise ModelError(f"{found} is a model that code builds; it has no config to read")
    return _read_config(found), str(found)


def _read_config(file: Path) -> Document:
    try:
        with file.open("rb") as stream:
            content = stream.read(_LARGEST_FILE + 1)
        if content.startswith(b"GGUF"):
            raise ModelError(
                f"{file} is a GGUF file, which says nothing of the code that runs; give the config.json of the model "
                "that it was made from, with a weight format such as gguf-q4_k"
            )
        if len(content) > _LARGEST_FILE:
            raise ModelError(f"{file} has more than {_LARGEST_FILE:,} bytes; a config.json has a few thousand")
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        raise ModelError(f"{file} is no UTF-8 text{', but UTF-16' if wide else ''}; a config.json is UTF-8") from None
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}") from None
    if not text.strip():
        raise ModelError(f"{file} is empty; a config.json has the fields of a model")
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> Document:
        twice.extend(name for name, times in Counter(name for name, _ in items).items() if times > 1)
        return dict(items)

    try:
        fields = json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:  # a number of too many digits is a plain ValueError
        raise ModelError(f"{file} is not valid JSON: {error}") from None
    if twice:
        raise ModelError(f"{file} says {twice[0]} twice, of which readers keep one or the other; say it once")
    if not isinstance(fields, dict):
        raise ModelError(f"{file} holds a {type(fields).__name__}, not the object of fields that a config.json is")
    return fields


def _hub_config(repo: str) -> Document:
    known = [name for name in preset_names() if preset(name).source.split()[0].lower() == repo.lower()]
    hint = f"; its config is the preset {' or '.join(known)}" if known else ""
    if not _cached(repo) and not _reachable():
        raise ModelError(
            f"no config.json for {repo!r}: the Hugging Face Hub does not answer, and it is in no cache here"
            f"{hint or '; give a folder or a config.json'}"
        )
    try:
        fields, _ = PreTrainedConfig.get_config_dict(repo)
    except Exception as error:  # the hub client raises a dozen unrelated classes
        reason = one_line(error).split(" (")[0]
        raise ModelError(f"no config.json for {repo!r} from the Hugging Face Hub: {reason}{hint}") from None
    return fields


def _cached(repo: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(repo, "config.json"), str)
    except HFValidationError:
        return False


def _reachable() -> bool:
    """Whether the Hub answers a connection soon; not asked where a proxy stands between, or the Hub is switched off."""
    proxies = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    if any(os.environ.get(name) for name in proxies):
        return True
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    host = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname or ""
    answered: list[bool] = []
    asking = threading.Thread(target=lambda: answered.append(_connects(host)), daemon=True)
    asking.start()
    asking.join(HUB_SECONDS)  # looking a name up has no time limit of its own
    return bool(answered and answered[0])


def _connects(host: str) -> bool:
    try:
        with socket.create_connection((host, 443), timeout=HUB_SECONDS):
            return True
    except OSError:
        return False


def shown(value: Any) -> str:
    """A value from a config as a message shows it: on one line, and not at any length."""
    text = f"{value:,}" if type(value) is int and value < 10**40 else "a number" if type(value) is int else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def unknown_word(error: KeyError, config: PreTrainedConfig) -> str | None:
    """The field of ``config`` whose word transformers' code has looked up in vain, and the words that it knows there;
    None where that is not what happened."""
    word = error.args[0] if error.args else None
    fields = [name for name, value in _nested(config.to_dict()) if value == word]
    if not isinstance(word, str) or not fields:
        return None
    tables = (table for frame, _ in traceback.walk_tb(error.__traceback__) for table in _tables(frame))
    known = next((sorted(table) for table in tables if word not in table), None)
    if known is None:
        return None
    if fields[0].startswith("rope"):  # which its code tells from the others before it looks them up
        known = ["default", *known]
    return f"{fields[0]} is {shown(word)}, which transformers does not know; it knows {', '.join(known)}"


def _nested(fields: Mapping[str, Any], inside: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        yield f"{inside}{name}", value
        if isinstance(value, Mapping):
            yield from _nested(value, f"{inside}{name}.")


def _tables(frame: FrameType) -> Iterator[Mapping[str, Any]]:
    """The tables that the code of a frame names and that map words, such as those of activations."""
    named = {name: frame.f_globals[name] for name in frame.f_code.co_names if name in frame.f_globals}
    for value in named.values():
        if isinstance(value, Mapping) and len(value) > 1 and all(isinstance(key, str) for key in value):
            yield value


def refusal(error: Exception) -> str:
    """Why transformers refuses a config, without the names of Python's classes and of its own checks."""
    text = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", one_line(error, longest=2_000)).partition(". Errors: ")[0]
    text = re.sub(r"^(?:Class v|V)alidation error for (?:field|validator) '\w+': \w+: ", "", text)
    return text if len(text) <= 300 else f"{text[:297]}..."


def one_line(error: Exception, *, longest: int = 300) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= longest else text[: longest - 3] + "..."


def usual_fields(fields: Fields) -> Document | None:
    """What transformers takes where a config of this type says nothing."""
    try:
        usual: Document = CONFIG_MAPPING[fields["model_type"]]().to_dict()
    except Exception:  # some have no defaults
        return None
    return usual
