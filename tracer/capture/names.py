"""What modules, weights and buffers are called, by identity."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from fxmeter.tracer.private import storage_key
from fxmeter.tracer.state.tree import derived, named_tensors, walk


def names_of(root: nn.Module) -> tuple[dict[int, str], dict[int, str], set[int]]:
    """Module → path, weight or buffer → name, and the members of lists, all by identity.

    Parameters that have the same elements of one storage go by the name of the first.
    """
    paths = {id(module): path for path, module in walk(root)}
    weights: dict[int, str] = {}
    first: dict[object, str] = {}
    for store in ("_parameters", "_buffers"):
        for name, tensor in named_tensors(root, store):
            elements = (storage_key(tensor), tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
            weights[id(tensor)] = first.setdefault(elements, name)
    members = {id(m) for _, module in walk(root) if isinstance(module, nn.ModuleList) for m in module}
    return paths, weights, members


def module_classes(root: nn.Module) -> Mapping[str, str]:
    """Path → class name, for every module of ``root``."""
    return derived(root, _classes)


def _classes(root: nn.Module) -> dict[str, str]:
    return {path: type(module).__name__ for path, module in walk(root)}
