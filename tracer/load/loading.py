"""From a name, a file or a config to a causal language model on ``meta``: shapes and code, no weights."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from fxmeter.models.choices import Dtype
from fxmeter.models.errors import DeploymentError, FxmeterError, ModelError
from fxmeter.models.formats import WeightFormats, formats_of_config
from fxmeter.models.model_info import LeftOut
from fxmeter.models.names import Document, Fields, near
from fxmeter.models.presets import preset_names
from fxmeter.models.source import Factory, locate
from fxmeter.tracer.load.decoder import DecoderWithHead
from fxmeter.tracer.load.drafting import COUNTS, DraftingDecoder, further_layers, with_layers
from fxmeter.tracer.load.factory import built_by, fingerprint
from fxmeter.tracer.load.parts import encoder_decoder_class, left_out, text_decoder
from fxmeter.tracer.load.reading import read_fields, refusal, shown, unknown_word, usual_fields
from fxmeter.tracer.private import kept_in_float32
from fxmeter.tracer.run.suspects import suspects
from fxmeter.tracer.state.session import one_building

DTYPES = {name: getattr(torch, name) for name in get_args(Dtype)}
_LARGEST_COUNTS = {
    re.compile(r"(layers?|blocks)$"): 1_000,
    re.compile(r"(heads?|experts?)$"): 100_000,
    re.compile(r"^num_labels$"): 1_000_000,
    re.compile(r"window$"): 2**40,
}
"""The most of each that a config may ask for: several times any model there is."""
_REMOTE_CODE_FIELDS = ("auto_map", "trust_remote_code")
_IGNORED_FIELDS = (*_REMOTE_CODE_FIELDS, "quantization_config")
LEFT_OUT = "left_out"
"""The attribute in which a loaded model carries what of its checkpoint is not priced."""
SOURCE = "source_sha256"
"""The attribute in which a loaded model carries a hash of what it follows from: its config, or its own code."""
EXAMPLE_INPUTS = "example_inputs"
"""The attribute in which a module that the user's own code built carries the inputs that came with it, or None."""
Formats = WeightFormats | DeploymentError | None
FORMATS = "weight_formats"
"""The attribute in which a loaded model carries the storage formats of its checkpoint, or why they are not priced."""


def load_model(
    source: str | Path | Fields | PreTrainedConfig,
    *,
    dtype: str | torch.dtype | None = None,
    mtp: bool = False,
) -> nn.Module:
    """Build the causal language model that ``source`` describes, on ``meta``, in inference mode.

    Args:
        source: a preset's name, a folder or ``config.json``, a Hub id ("owner/name"), a config, the fields of one, or a
            function of your own that builds the model ("python:package.module:function"). Code that comes with a config
            is never run.
        dtype: what the code computes in; by default the checkpoint's own, bfloat16 where the config is silent.
        mtp: with the layers of the checkpoint that predict further tokens (multi-token prediction), which transformers
            leaves out. They run after the decoder in each pass, on all of its tokens, and draft a token each; they have
            caches of their own. Embedding and head are the decoder's.

    Returns:
        transformers' own module. The storage format that a ``quantization_config`` names is kept beside it, in
        ``model.weight_formats``, and priced. One that cannot be priced is the DeploymentError of whoever prices the
        model without a format of their own (``deploy(weights=...)``).

    Raises:
        ModelError: nothing of that name, or a config that makes no causal language model; one line says which.
    """
    if isinstance(source, str) and isinstance(factory := locate(source), Factory):
        if mtp:
            raise ModelError(f"{source}: mtp is for a config, which says how many layers predict further tokens")
        return _built_here(factory, dtype)
    config, formats, sha256 = _read(source)
    _refuse_absurd(vars(config), str(config.model_type))
    with one_building():
        model, beside = _on_meta(config, dtype, mtp)
    setattr(model, "name_or_path", _name_of(source, config))  # noqa: B010  any module takes it
    setattr(model, FORMATS, formats)
    setattr(model, LEFT_OUT, beside)
    setattr(model, SOURCE, sha256)
    return model.eval()


def _on_meta(
    config: PreTrainedConfig, dtype: str | torch.dtype | None, mtp: bool
) -> tuple[nn.Module, tuple[LeftOut, ...]]:
    """The language model of a config, and what of the checkpoint it leaves out."""
    with _as_model_errors(config):
        text, beside = text_decoder(config), left_out(config, mtp=mtp)
    chosen = dtype_of(dtype, {"dtype": config.dtype or text.dtype})
    layers = getattr(text, "num_hidden_layers", None)
    if type(layers) is int and layers < 0:
        raise ModelError(f"{config.model_type} config: num_hidden_layers is {layers}, which is no number of layers")
    further = further_layers(text, config) if mtp else 0
    if mtp and not further:
        raise ModelError(f"{config.model_type}: its config names no layers that predict further tokens ({COUNTS[0]})")
    if further:
        text = with_layers(text, further)
    with (
        _as_model_errors(config),
        torch.device("meta"),
        init.no_init_weights(),
        init.meta_device_safe_creation_ops(),
    ):
        model = _built(config, text, chosen)
        if isinstance(model, PreTrainedModel):
            model.tie_weights()  # what else initialising does is not needed
        if further:
            model = DraftingDecoder(model, further).to(chosen)
    _keep_in_float32(model, chosen)
    if any(not tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        model.to("meta")  # torch.FloatTensor(...) and the like know nothing of a default device
    return model, beside


def _built_here(factory: Factory, dtype: str | torch.dtype | None) -> nn.Module:
    """What the user's own code builds, in ``dtype`` where one is asked for."""
    model, inputs = built_by(factory)
    told = {FORMATS: None, LEFT_OUT: (), SOURCE: fingerprint(model), EXAMPLE_INPUTS: inputs}
    for name, value in told.items():
        setattr(model, name, value)
    return model if dtype is None else model.to(dtype_of(dtype, {}))


def _built(config: PreTrainedConfig, text: PreTrainedConfig, dtype: torch.dtype) -> nn.Module:
    """The language model: encoder and decoder, the text decoder without the towers beside it, or an encoder alone."""
    both: Any = encoder_decoder_class(text)
    if both is not None:
        return both._from_config(text, dtype=dtype, attn_implementation="eager")
    if type(text) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM.from_config(text, dtype=dtype, attn_implementation="eager")
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        cls: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        own = text if cls.config_class is type(text) else config
        return cls._from_config(own, dtype=dtype, attn_implementation="eager")
    if type(text) in MODEL_FOR_MASKED_LM_MAPPING:  # an encoder
        return AutoModelForMaskedLM.from_config(text, dtype=dtype, attn_implementation="eager")
    return DecoderWithHead.from_config(text, dtype=dtype)


def load_config(source: str | Path | Fields | PreTrainedConfig) -> PreTrainedConfig:
    """The transformers config behind ``source``; the caller may change it freely."""
    return _read(source)[0]


def _read(source: str | Path | Fields | PreTrainedConfig) -> tuple[PreTrainedConfig, Formats, str]:
    """The config, the storage formats that it names, and a hash of its fields as they are given: what a release of
    transformers fills in beside them is none of the model's."""
    if isinstance(source, PreTrainedConfig):
        config, sha256 = copy.deepcopy(source), _sha256(source.to_diff_dict())
        quantised = getattr(config, "quantization_config", None)
        if quantised is None:
            return config, None, sha256
        del config.quantization_config
        fields = quantised if isinstance(quantised, dict) else quantised.to_dict()
        return config, _formats(fields, expert_dtype=getattr(config, "expert_dtype", None)), sha256
    fields, origin = (source, _name_in(source)) if isinstance(source, Mapping) else read_fields(source)
    quantised = _quantisation_in(fields)
    if quantised is not None and not isinstance(quantised, dict):
        raise ModelError(f"{origin}: quantization_config is {shown(quantised)}, not an object")
    config = _config_from({name: value for name, value in fields.items() if name != "expert_dtype"}, origin)
    formats = None if quantised is None else _formats(quantised, expert_dtype=fields.get("expert_dtype"))
    return config, formats, _sha256(fields)


def _quantisation_in(fields: Fields) -> Any:
    """A config's words on how its weights are stored, under either name, its own or those of its text model."""
    inner = fields.get("text_config")
    for owner in (fields, inner if isinstance(inner, Mapping) else {}):
        for name in ("quantization_config", "compression_config"):
            if owner.get(name) is not None:
                return owner[name]
    return None


def _sha256(fields: Fields) -> str:
    return hashlib.sha256(json.dumps(dict(fields), sort_keys=True, default=str).encode()).hexdigest()


def _formats(quantised: Document, *, expert_dtype: str | None = None) -> Formats:
    try:
        return formats_of_config(quantised, expert_dtype=expert_dtype)
    except DeploymentError as error:
        return error


def _config_from(fields: Document, origin: str) -> PreTrainedConfig:
    """A config object from the fields of a ``config.json``. What names code to run is dropped unread."""
    model_type = fields.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        what = (
            "has no model_type" if model_type is None else f"has the model_type {shown(model_type)}, which is no name"
        )
        raise ModelError(f"{origin} {what}, so no architecture can be chosen")
    if model_type not in CONFIG_MAPPING:
        presets = near(model_type.replace("_", "-"), preset_names()).removeprefix("did you mean ").removesuffix("? ")
        types = near(model_type.strip().lower(), CONFIG_MAPPING.keys()).removesuffix(" ")
        if model_type.strip().lower() in CONFIG_MAPPING:
            presets = ""
        hint = f"; there is the preset {presets}" if presets else f"; {types}" if types else ""
        code = " and code that comes with a config is never run" if "auto_map" in fields else ""
        known = f"transformers {_transformers_version()}"
        raise ModelError(f"{origin}: model_type {shown(model_type)} is unknown to {known}{code}{hint}")
    _refuse_absurd(fields, origin)
    wanted = {k: v for k, v in fields.items() if k not in _IGNORED_FIELDS and k != "model_type"}
    with _as_model_errors(origin, fields):
        return CONFIG_MAPPING[model_type].from_dict(wanted)


def _refuse_absurd(fields: Fields, origin: str) -> None:
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
                raise ModelError(f"{origin}: {name!s:.80} is {shown(value)}; the largest accepted is {most:,}")


def dtype_of(dtype: str | torch.dtype | None, fields: Fields) -> torch.dtype:
    """The dtype asked for, else the one that a config's ``fields`` name, else bfloat16."""
    if dtype is None:
        dtype = fields.get("dtype") or fields.get("torch_dtype") or "bfloat16"
    if isinstance(dtype, torch.dtype):
        return dtype
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ModelError(f"dtype must be one of {', '.join(DTYPES)}, not {shown(dtype)}")
    return DTYPES[dtype]


def _keep_in_float32(model: nn.Module, dtype: torch.dtype) -> None:
    """Give float32 to the parameters and buffers that ``from_pretrained`` keeps in it (a router's correction bias)."""
    lists = {torch.bfloat16: (True,), torch.float16: (True, False)}.get(dtype, ())
    patterns = [kept for strictly in lists if (kept := kept_in_float32(model, strictly=strictly))]
    for path, module in model.named_modules() if patterns else ():
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is not None and tensor.dtype == dtype and any(p.search(f"{path}.{name}") for p in patterns):
                    tensor.data = tensor.data.to(torch.float32)


def _name_in(fields: Fields) -> str:
    return str(fields.get("_name_or_path") or f"{fields.get('model_type')} config")


def _name_of(source: str | Path | Fields | PreTrainedConfig, config: PreTrainedConfig) -> str:
    if isinstance(source, Mapping):
        return _name_in(source)
    if isinstance(source, PreTrainedConfig):
        return config.name_or_path or str(config.model_type)
    return str(source)


@contextmanager
def _as_model_errors(origin: str | PreTrainedConfig, given: Fields | None = None) -> Iterator[None]:
    """Whatever transformers raises about a config, or about the fields ``given`` for one, as one ModelError that says
    which, with the fields that it may be."""
    name = origin if isinstance(origin, str) else f"{origin.model_type} config"
    try:
        yield
    except (FxmeterError, KeyboardInterrupt):
        raise
    except Exception as error:
        config = None if isinstance(origin, str) else origin
        fields = given or {} if config is None else {**config.to_dict(), "model_type": config.model_type}
        told = unknown_word(error, config) if isinstance(error, KeyError) and config is not None else None
        words = refusal(error)
        told = told or f"transformers refuses it: {words}{suspects(fields, usual_fields(fields), words)}"
        raise ModelError(f"{name}: {told}") from error


def _transformers_version() -> str:
    from transformers import __version__

    return str(__version__)
