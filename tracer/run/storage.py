"""A recording as it is deployed: weights and cache in their storage formats.

The recorded code is unchanged, and so are shapes and dtypes: products read their weights as the format keeps them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from torch import Tensor, fx, nn

from fxmeter.models.deployment import Deployment
from fxmeter.models.errors import DeploymentError
from fxmeter.models.formats import KvFormat, Parameter, Role, StorageFormat, WeightFormats
from fxmeter.tracer.capture.recording import Paging, Recording, Weight
from fxmeter.tracer.graph.nodes import executed, spec_of, specs_of
from fxmeter.tracer.operators.ops import cache_append
from fxmeter.tracer.private import kept_in_float32, local_part
from fxmeter.tracer.serving.heads import heads_once
from fxmeter.tracer.state.tree import derived, named_tensors, walk

Stored = Mapping[str, tuple[int, StorageFormat]]
"""Path of a parameter → its stored bytes and the format."""


def as_deployed(recording: Recording, model: nn.Module, deployment: Deployment) -> Recording:
    """``recording`` with the bytes that weights and cache take under ``deployment``."""
    recording = _weights_as(recording, stored_as(model, deployment))
    if (kv := kv_of(model, deployment)) is not None:
        recording = _cache_as(recording, kv)
    if deployment.kernels == "serving":
        heads_once(recording)
    return recording if deployment.page_size is None else _paged(recording, deployment.page_size)


def formats_of(model: nn.Module, deployment: Deployment) -> WeightFormats | None:
    """The formats in force: those asked for, else the checkpoint's. Raises DeploymentError if those are not priced."""
    if deployment.weights is not None:
        return deployment.weights
    own: WeightFormats | DeploymentError | None = getattr(model, "weight_formats", None)
    if isinstance(own, DeploymentError):
        raise own
    return own


def kv_of(model: nn.Module, deployment: Deployment) -> KvFormat | None:
    """The cache's format: the one asked for, else the checkpoint's where its weights are; None for the code's own."""
    if deployment.kv is not None or deployment.weights is not None:
        return deployment.kv
    return getattr(getattr(model, "weight_formats", None), "kv", None)


def resident_bytes(model: nn.Module, deployment: Deployment) -> int:
    """What all parameters take, tied ones once."""
    return sum(_bytes_by_path(model, deployment).values())


def checkpoint_bytes(model: nn.Module, deployment: Deployment) -> int:
    """What the tensors of a checkpoint take: all parameters, tied ones once, the buffers that are saved with them, and
    what is stored again for layers that predict further tokens."""
    stored = _bytes_by_path(model, deployment)
    kept = (tensor for tensor in model.state_dict(keep_vars=True).values() if isinstance(tensor, Tensor))
    saved = {id(tensor): tensor.nbytes for tensor in kept if not isinstance(tensor, nn.Parameter)}
    again = sum(stored.get(f"{path}.weight", 0) for path in getattr(model, "stored_again", ()))
    return sum(stored.values()) + sum(saved.values()) + again


def _bytes_by_path(model: nn.Module, deployment: Deployment) -> Mapping[str, int]:
    stored = stored_as(model, deployment)
    names = named_tensors(model, "_parameters")
    return {path: stored[path][0] if path in stored else parameter.nbytes for path, parameter in names}


def stored_as(model: nn.Module, deployment: Deployment) -> Stored:
    """Path of each parameter that a format covers → its stored bytes and format; kept with the model."""
    formats = formats_of(model, deployment)
    if formats is None:
        return {}
    known = derived(model, _stored)
    if formats not in known:
        known[formats] = _stored_weights(model, formats)
    return known[formats]


def _stored(model: nn.Module) -> dict[WeightFormats, Stored]:
    return {}


def _stored_weights(model: nn.Module, formats: WeightFormats) -> Stored:
    parameters, head = dict(_parameters(model)), _head(model)
    described = [
        Parameter(path, tuple(p.shape), _matrices_in(model, path, p)[2], *_role(model, path, p, p is head))
        for path, p in parameters.items()
    ]
    assigned = formats.assigned(described)
    return {
        path: (_bytes(model, path, parameters[path], found), found)
        for path, found in assigned.items()
        if found.takes(*_matrices_in(model, path, parameters[path])[1:])
    }


def _parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """All of them, tied ones by each of their names."""
    for path, module in walk(model):
        for name, parameter in module._parameters.items():
            if parameter is not None:
                yield f"{path}.{name}" if path else name, parameter


def _role(model: nn.Module, path: str, parameter: Tensor, is_head: bool) -> tuple[Role, bool]:
    """A parameter's role, and whether it is an embedding that is the head too."""
    owner, _, name = path.rpartition(".")
    module = model.get_submodule(owner)
    kept = kept_in_float32(model, strictly=False)
    if owner in getattr(model, "unconverted", ()) or (kept is not None and kept.search(path)):
        return "other", False
    if isinstance(module, nn.Linear) and name == "weight":
        return "head" if is_head else "experts" if "experts" in owner else "linear", False
    if isinstance(module, nn.Embedding) and not _is_of_positions(owner):
        return "embedding", is_head
    if parameter.dim() == 3 and not hasattr(module, "kernel_size"):  # a convolution has one
        return "experts", False
    return "other", False


def _is_of_positions(path: str) -> bool:
    name = path.rpartition(".")[2]
    return "pos" in name or "type" in name or name == "wpe"


def _head(model: nn.Module) -> Any:
    find: Any = getattr(model, "get_output_embeddings", None)
    return getattr(getattr(model, "lm_head", None) if find is None else find(), "weight", None)


def _matrices_in(model: nn.Module, path: str, parameter: Tensor) -> tuple[int, int, int]:
    """How many matrices a parameter is, and their rows (outputs) and columns (inputs)."""
    if parameter.dim() != 3:
        columns = parameter.shape[-1] if parameter.dim() else 1
        return 1, parameter.numel() // max(columns, 1), columns
    experts, rows, columns = parameter.shape
    owner = model.get_submodule(path.rpartition(".")[0])
    if getattr(owner, "is_transposed", False):  # [E, in, out], as gpt-oss and Llama 4 keep them
        rows, columns = columns, rows
    if "gate_up" in path and rows % 2 == 0:  # two matrices side by side, each with scales of its own
        return 2 * experts, rows // 2, columns
    return experts, rows, columns


def _bytes(model: nn.Module, path: str, parameter: nn.Parameter, found: StorageFormat) -> int:
    """Stored bytes of a parameter, of a distributed one those of this rank.

    Raises DeploymentError where ranks would share a block that has one scale.
    """
    count, *sides = _matrices_in(model, path, local_part(parameter))
    for side, whole, block in zip(sides, _matrices_in(model, path, parameter)[1:], found.block, strict=True):
        if side != whole and side % block and whole % block == 0:
            raise DeploymentError(
                f"{path}: a rank has {side} of {whole}, which cuts through the blocks of {block} that {found.name} has "
                "scales for; use fewer ranks, experts over ranks (ep), or another format"
            )
    return count * found.nbytes(*sides)


def _weights_as(recording: Recording, stored: Stored) -> Recording:
    if not stored:
        return recording
    for node in recording.graph.nodes:
        if node.op == "get_attr" and str(node.target) in stored:
            nbytes, found = stored[str(node.target)]
            spec = spec_of(node)
            spec.storage.ratio, spec.storage.computes = Fraction(nbytes, spec.numel * spec.itemsize), found.computes
    weights = tuple(
        Weight(weight.path, weight.numel, stored[weight.path][0]) if weight.path in stored else weight
        for weight in recording.weights
    )
    return replace(recording, weights=weights)


def _cache_as(recording: Recording, kv: KvFormat) -> Recording:
    """Give the tensors that grow by appending, keys, values and latents, the bytes of ``kv``; states keep theirs,
    which is said."""
    formatted: set[int] = set()
    for node in executed(recording.graph):
        if node.target is cache_append:
            grown = spec_of(node)
            vector = grown.shape[-1]
            ratio = kv.nbytes(vector, vector) / (vector * grown.itemsize)
            past = node.args[0]
            for spec in (grown, *(specs_of(past) if isinstance(past, fx.Node) else ())):
                if spec.is_float:
                    spec.storage.ratio = ratio
                    formatted.add(spec.storage.id)
    others = [entry for entry in recording.cache if entry.spec.storage.id not in formatted]
    kept = sorted({f"{entry.name.partition('.')[0]} ({entry.kind})" for entry in others})
    if not kept:
        return recording
    text = f"a KV format is of what grows with the tokens; of the cache, {', '.join(kept)} keep their own bytes"
    return replace(recording, assumptions=(*recording.assumptions, text))


def _paged(recording: Recording, size: int) -> Recording:
    """What grows by appending, in pages of ``size`` tokens; states of another kind stay as they are."""
    grown = {spec_of(node).storage.id: node for node in executed(recording.graph) if node.target is cache_append}
    entries = []
    for entry in recording.cache:
        node = grown.get(entry.spec.storage.id)
        if node is not None:
            whole, dim = spec_of(node).shape, node.args[2]
            dim = dim % len(whole) if isinstance(dim, int) else 0
            slides = entry.spec.shape[dim] != whole[dim]
            entry = replace(entry, paging=Paging(size, dim, slides))
        entries.append(entry)
    return replace(recording, cache=tuple(entries))
