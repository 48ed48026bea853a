"""Answering what a model's code asks about data, where the answer needs none.

On meta a tensor has no values, yet code asks for some: is there padding, how long is the longest sequence, are these
positions packed. What leads to such a question is nearly always bookkeeping on integers that starts from constants,
positions and the all-ones mask. Here that part of the recorded graph, and nothing else, is run on the CPU. Token ids
count as ordinary tokens. What depends on weights stays unknown, with one exception: which experts a top-k picks is
taken to be balanced, each as often as any other, so that code which asks who got how many tokens gets an even split,
and experts that compute nothing get their share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fxmeter.tracer.graph.nodes import meta_of, spec_of, specs_of
from fxmeter.tracer.graph.schema import changed_arguments
from fxmeter.tracer.graph.spec import Spec
from fxmeter.tracer.private import OpOverload, pytree, without_modes

aten = torch.ops.aten
LARGEST = 2**26
"""Elements of the largest tensor that is worked out: beyond it the question stays open."""
_TOKEN = 5
"""Stands for an ordinary token: no config in use gives it to padding or a separator."""


QUESTIONS = frozenset(
    {
        aten._local_scalar_dense.default,
        aten.equal.default,
        aten.nonzero.default,
        aten._to_copy.default,
        aten.index.Tensor,
        aten.index_put_.default,
    }
)
"""The ops that ask for values, or for a shape that depends on them: a copy where it leaves meta, an index by a mask."""


class UnknownValueError(Exception):
    """The answer depends on data."""


def answer(func: Any, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``func`` returns, on meta where it returns tensors. Raises UnknownValueError where weights would decide."""
    if func in (aten.index.Tensor, aten.index_put_.default):
        return _by_mask(func, node, args, kwargs)
    known = _values([n for n in node.all_input_nodes if isinstance(meta_of(n).spec, Spec)])
    on_cpu = fx.map_arg((node.args, node.kwargs), lambda n: known[n])
    out = func(*on_cpu[0], **{**on_cpu[1], **({"device": "cpu"} if "device" in on_cpu[1] else {})})
    if func is aten._to_copy.default:
        return out
    return pytree.tree_map_only(Tensor, lambda t: t.to("meta"), out)


def _by_mask(func: Any, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An index by masks, as one by the positions where they hold."""
    indices: list[Any] = []
    for index, source in zip(args[1], node.args[1], strict=True):  # type: ignore[arg-type]
        if isinstance(index, Tensor) and index.dtype == torch.bool:
            held = _values([source])[source].nonzero(as_tuple=True)
            indices += [positions.to("meta") for positions in held]
        else:
            indices.append(index)
    return func(args[0], indices, *args[2:], **kwargs)


def _values(nodes: list[fx.Node]) -> dict[fx.Node, Any]:
    """The tensors that ``nodes`` would hold on the CPU."""
    needed = _ancestors(nodes)
    known: dict[fx.Node, Any] = {}
    with without_modes():
        for node in nodes[0].graph.nodes if nodes else ():
            if node in needed:
                known[node] = _run(node, known)
    return known


def _run(node: fx.Node, known: dict[fx.Node, Any]) -> Any:
    spec: Any = meta_of(node).spec
    target: Any = node.target
    if node.op == "placeholder":
        if spec.is_float or spec.role != "input":
            raise UnknownValueError
        return torch.full(spec.shape, _TOKEN, dtype=spec.dtype)
    if node.op == "get_attr":
        value = meta_of(node).constant
        # a list of positions that torch made a tensor of, unseen: whichever they are, all tokens are alike
        return torch.zeros(spec.shape, dtype=spec.dtype) if value is None else value
    if node.target is aten.topk.default:
        return _balanced(node)
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: known[n])
    if "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    return target(*args, **kwargs)


def _ancestors(nodes: list[fx.Node]) -> set[fx.Node]:
    """Everything that decides the values of ``nodes``, in-place changes of the tensors met included."""
    needed = set(nodes)
    storages = {id(spec_of(n).storage) for n in nodes}
    if not nodes:
        return needed
    for node in reversed(nodes[0].graph.nodes):
        meta = meta_of(node)
        spec = meta.spec
        if node not in needed:
            changes = isinstance(node.target, OpOverload) and bool(changed_arguments(node.target))
            if not (changes and isinstance(spec, Spec) and id(spec.storage) in storages):
                continue
            needed.add(node)
        if isinstance(spec, Spec):
            if math.prod(spec.shape) > LARGEST:
                raise UnknownValueError
            if node.op == "get_attr" and meta.constant is None and (spec.is_float or meta.is_weight):
                raise UnknownValueError
            storages.add(id(spec.storage))
        if node.target is not aten.topk.default:
            needed.update(node.all_input_nodes)
    return needed


def _balanced(node: fx.Node) -> tuple[Tensor, Tensor]:
    """A top-k that picks every position equally often."""
    values, picked = specs_of(node)
    (source,) = node.all_input_nodes
    dim: Any = node.args[2] if len(node.args) > 2 else -1
    return torch.ones(values.shape, dtype=values.dtype), balanced_picks(picked.shape, spec_of(source).shape[dim])


def balanced_picks(shape: Sequence[int], positions: int) -> Tensor:
    """Indices below ``positions``: each as often as any other, any run of them spread evenly over the whole range.

    One pick after another goes on by the golden section of the range, rounded to a step that meets every position. So
    the picks of a token differ, and where some positions cost nothing, even a few picks have their share of those.
    """
    step = round(positions * (math.sqrt(5) - 1) / 2)
    while math.gcd(step, positions) != 1:
        step += 1
    return (torch.arange(math.prod(shape)) * step % positions).reshape(tuple(shape))
