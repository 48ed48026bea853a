"""compressed-tensors: schemes by group of modules."""

from __future__ import annotations

from fxmeter.models.errors import DeploymentError
from fxmeter.models.formats.config import WeightFormats
from fxmeter.models.formats.fields import kept_of, unpriced
from fxmeter.models.formats.storage import StorageFormat
from fxmeter.models.formats.weights import blocked_fp8, weight_format, with_scalars
from fxmeter.models.names import Fields


def compressed_tensors(fields: Fields) -> WeightFormats:
    """Formats by module. Raises DeploymentError for what is not priced."""
    sparse = (fields.get("sparsity_config") or {}).get("format", "dense")
    if sparse != "dense":
        raise unpriced("compressed-tensors", f"sparse weights ({sparse})", "dense ones")
    groups: list[tuple[str, StorageFormat]] = []
    for scheme in (fields.get("config_groups") or {}).values():
        item = _compressed(scheme, str(scheme.get("format") or fields.get("format") or ""))
        for target in map(str, scheme.get("targets") or ["Linear"]):
            if target[:1].isupper() and target != "Linear":
                raise unpriced("compressed-tensors", f"target {target!r}", "Linear, names, and expressions after re:")
            groups.append((target, item))
    if not groups:
        raise DeploymentError(
            "quantization_config: compressed-tensors without config_groups says of no weight how it is stored"
        )
    kept = kept_of(fields)
    return WeightFormats("compressed-tensors", tuple(groups), kept, head="lm_head" not in kept)


def _compressed(scheme: Fields, layout: str) -> StorageFormat:
    weights = scheme.get("weights") or {}
    bits, kind = weights.get("num_bits", 16), str(weights.get("type", "int"))
    strategy, group = str(weights.get("strategy", "tensor")), weights.get("group_size") or 128
    acts = scheme.get("input_activations")
    if "24" in layout:
        raise unpriced("compressed-tensors", f"format {layout!r}", "dense ones")
    if kind == "float" and bits == 4:
        return weight_format("nvfp4" if acts else "nvfp4a16") if group == 16 else weight_format("mxfp4")
    if kind == "float" and bits == 8:
        if strategy == "block":
            height, width = map(int, weights.get("block_structure") or (128, 128))
            return blocked_fp8(height, width, scale_bytes=2)
        if strategy == "channel":
            return weight_format("fp8-channel")
        return with_scalars(weight_format("fp8-static" if acts and not acts.get("dynamic") else "fp8"), 2)
    if bits == 8 and acts:
        return weight_format("int8")
    if bits == 8:
        return weight_format(f"int8-group-g{group}" if strategy == "group" else "int8-weight-only")
    if bits == 4:
        family = "int4-asym" if weights.get("symmetric") is False else "int4"
        family += "-ordered" if weights.get("actorder") == "group" else ""
        return weight_format(f"{family}-g{group if strategy == 'group' else 10**6}")
    raise DeploymentError(
        f"quantization_config: compressed-tensors weights of {bits} bits ({kind}, {layout}) are not priced"
    )
