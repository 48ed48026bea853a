"""From a name, a file or a config to a causal language model on ``meta``: shapes and code, no weights."""

from __future__ import annotations

import copy
import difflib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from fxmeter.models.choices import Dtype
from fxmeter.models.errors import FxmeterError, ModelError
from fxmeter.models.formats import WeightFormats, formats_of_config
from fxmeter.models.presets import Preset
from fxmeter.models.source import HubId, locate
from fxmeter.tracer.load.decoder import DecoderWithHead

DTYPES = {name: getattr(torch, name) for name in get_args(Dtype)}
_LARGEST_COUNTS = {re.compile(r"(layers?|blocks)$"): 1_000, re.compile(r"(heads?|experts?)$"): 100_000}
"""The most layers, and the most heads or experts, that a config may ask for: several times any model there is."""
_LARGEST_FILE = 2**24
_REMOTE_CODE_FIELDS = ("auto_map", "trust_remote_code")
_IGNORED_FIELDS = (*_REMOTE_CODE_FIELDS, "quantization_config")
FORMATS = "weight_formats"
"""The attribute in which a loaded model carries the storage formats of its checkpoint, or None."""


def load_model(source: str | Path | PreTrainedConfig, *, dtype: str | torch.dtype | None = None) -> nn.Module:
    """Build the causal language model that ``source`` describes, on ``meta``, in inference mode.

    ``source`` is a preset's name, a folder or ``config.json``, a Hub id ("owner/name"), or a config. ``dtype`` is by
    default the checkpoint's own, bfloat16 where the config is silent. The storage format that a
    ``quantization_config`` names is kept beside the model, in ``model.weight_formats``, and priced; the code that runs
    computes in ``dtype``. Code that comes with a config is never run. Raises ModelError, or DeploymentError for a
    quantisation that cannot be priced, with one line that says what is wrong.
    """
    config, formats = _config_and_formats(source)
    _refuse_absurd(vars(config), str(config.model_type))
    fields = {"dtype": config.dtype or config.get_text_config().dtype}
    chosen = dtype_of(dtype, fields)
    with (
        _as_model_errors(config),
        torch.device("meta"),
        init.no_init_weights(),
        init.meta_device_safe_creation_ops(),
    ):
        if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
            model = AutoModelForCausalLM.from_config(config, dtype=chosen, attn_implementation="eager")
        else:
            model = DecoderWithHead.from_config(config, dtype=chosen)
    _keep_in_float32(model, chosen)
    if any(not tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        model.to("meta")  # torch.FloatTensor(...) and the like know nothing of a default device
    if isinstance(model, PreTrainedModel):
        model.tie_weights()  # what else initialising does is not needed
    model.name_or_path = _name_of(source, config)
    setattr(model, FORMATS, formats)
    return model.eval()


def load_config(source: str | Path | PreTrainedConfig) -> PreTrainedConfig:
    """The transformers config behind ``source``; the caller may change it freely."""
    return _config_and_formats(source)[0]


def _config_and_formats(source: str | Path | PreTrainedConfig) -> tuple[PreTrainedConfig, WeightFormats | None]:
    if isinstance(source, PreTrainedConfig):
        config = copy.deepcopy(source)
        quantised = getattr(config, "quantization_config", None)
        if quantised is None:
            return config, None
        del config.quantization_config
        return config, formats_of_config(quantised if isinstance(quantised, dict) else quantised.to_dict())
    fields, origin = read_fields(source)
    quantised = fields.get("quantization_config")
    if quantised is not None and not isinstance(quantised, dict):
        raise ModelError(f"{origin}: quantization_config is {_shown(quantised)}, not an object")
    config = _config_from({name: value for name, value in fields.items() if name != "expert_dtype"}, origin)
    if quantised is None:
        return config, None
    return config, formats_of_config(quantised, expert_dtype=fields.get("expert_dtype"))


def read_fields(source: str | Path) -> tuple[dict[str, Any], str]:
    """The fields of the ``config.json`` behind ``source`` as they stand there, and what to call it in messages."""
    found = locate(source)
    if isinstance(found, Preset):
        return dict(found.config), f"preset {found.name}"
    if isinstance(found, HubId):
        return _hub_config(found.name), found.name
    return _read_config(found), str(found)


def _read_config(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            content = stream.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise ModelError(f"{file} has more than {_LARGEST_FILE:,} bytes; a config.json has a few thousand")
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of too many digits is a plain ValueError
        raise ModelError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ModelError(f"{file} holds a {type(fields).__name__}, not the object of fields that a config.json is")
    return fields


def _hub_config(repo: str) -> dict[str, Any]:
    try:
        fields, _ = PreTrainedConfig.get_config_dict(repo)
    except Exception as error:  # the hub client raises a dozen unrelated classes
        reason = _one_line(error).split(" (")[0]
        raise ModelError(f"no config.json for {repo!r} from the Hugging Face Hub: {reason}") from None
    return fields


def _config_from(fields: dict[str, Any], origin: str) -> PreTrainedConfig:
    """A config object from the fields of a ``config.json``. What names code to run is dropped unread."""
    model_type = fields.get("model_type")
    if not isinstance(model_type, str):
        raise ModelError(f"{origin} has no model_type, so no architecture can be chosen")
    if model_type not in CONFIG_MAPPING:
        near = difflib.get_close_matches(model_type, list(CONFIG_MAPPING.keys()), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        code = " and code that comes with a config is never run" if "auto_map" in fields else ""
        known = f"transformers {_transformers_version()}"
        raise ModelError(f"{origin}: model_type {_shown(model_type)} is unknown to {known}{code}{hint}")
    _refuse_absurd(fields, origin)
    wanted = {k: v for k, v in fields.items() if k not in _IGNORED_FIELDS and k != "model_type"}
    with _as_model_errors(origin):
        return CONFIG_MAPPING[model_type].from_dict(wanted)


def _refuse_absurd(fields: Mapping[str, Any], origin: str) -> None:
    """A ModelError before work that would not end: modules and lists are built one by one on these counts."""
    waiting, seen = list(fields.items()), set()
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, PreTrainedConfig):
            value = vars(value)
        if isinstance(value, dict) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.items()
        for pattern, most in _LARGEST_COUNTS.items():
            if type(value) is int and value > most and pattern.search(str(name)):
                raise ModelError(f"{origin}: {name!s:.80} is {_shown(value)}; the largest accepted is {most:,}")


def dtype_of(dtype: str | torch.dtype | None, fields: Mapping[str, Any]) -> torch.dtype:
    """The dtype asked for, else the one that a config's ``fields`` name, else bfloat16."""
    if dtype is None:
        dtype = fields.get("dtype") or fields.get("torch_dtype") or "bfloat16"
    if isinstance(dtype, torch.dtype):
        return dtype
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ModelError(f"dtype must be one of {', '.join(DTYPES)}, not {_shown(dtype)}")
    return DTYPES[dtype]


def _keep_in_float32(model: nn.Module, dtype: torch.dtype) -> None:
    """Give float32 to the parameters and buffers that ``from_pretrained`` keeps in it (a router's correction bias)."""
    patterns = set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    if dtype == torch.float16:
        patterns |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    if not patterns or dtype not in (torch.float16, torch.bfloat16):
        return
    kept = re.compile("|".join(rf"((^|\.){pattern}($|\.))" for pattern in patterns))
    for path, module in model.named_modules():
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is not None and tensor.dtype == dtype and kept.search(f"{path}.{name}"):
                    tensor.data = tensor.data.to(torch.float32)


def _name_of(source: str | Path | PreTrainedConfig, config: PreTrainedConfig) -> str:
    if isinstance(source, PreTrainedConfig):
        return config.name_or_path or str(config.model_type)
    return str(source)


@contextmanager
def _as_model_errors(origin: str | PreTrainedConfig) -> Iterator[None]:
    """Whatever transformers raises about a config, as one ModelError that says which."""
    name = origin if isinstance(origin, str) else f"{origin.model_type} config"
    try:
        yield
    except (FxmeterError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise ModelError(f"{name}: transformers refuses it: {_one_line(error)}") from error


def _shown(value: Any) -> str:
    """A value from a config as a message shows it: on one line, and not at any length."""
    text = f"{value:,}" if type(value) is int and value < 10**40 else "a number" if type(value) is int else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def _transformers_version() -> str:
    from transformers import __version__

    return str(__version__)
