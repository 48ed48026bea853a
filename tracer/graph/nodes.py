"""What a recording says of each node of its graph, and the questions that every reader of the graph asks.

A recorded ``fx.Node`` carries one :class:`NodeMeta`; :func:`meta_of` reads it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from fxmeter.models.names import Kwargs
from fxmeter.tracer.graph.instances import Instance
from fxmeter.tracer.graph.schema import bind, changed_arguments
from fxmeter.tracer.graph.spec import Spec, Storage, specs_in
from fxmeter.tracer.private import OpOverload

_KEY = "fxmeter"

Made = Spec | tuple[Spec | None, ...] | None
"""What a node returns: a tensor, several, or none."""


@dataclass(slots=True)
class NodeMeta:
    """Facts about one node.

    ``module`` is the path of the module that ran it, ``instances`` are the folded layers around it, ``calls`` the
    calls of list members around it ("layers.3#1" is the first of layers.3), and ``span`` the moments at which it began
    and ended. ``is_weight`` marks a parameter or buffer of the model; ``constant`` is a tensor with data that the
    model's code carries. ``is_known`` says that its values depend on no weights.
    """

    spec: Made = None
    module: str = ""
    calls: tuple[str, ...] = ()
    instances: tuple[Instance, ...] = ()
    span: tuple[int, int] = (-1, -1)
    is_weight: bool = False
    constant: Tensor | None = None
    is_known: bool = False


def describe(node: fx.Node, meta: NodeMeta) -> NodeMeta:
    """Attach ``meta`` to a node; returns it."""
    node.meta[_KEY] = meta
    return meta


def meta_of(node: fx.Node) -> NodeMeta:
    """What the recorder says of a node."""
    meta: NodeMeta = node.meta[_KEY]
    return meta


def spec_of(node: fx.Node) -> Spec:
    """The one tensor that a node returns. Raises TypeError where it returns none, or several."""
    spec = meta_of(node).spec
    if not isinstance(spec, Spec):
        raise TypeError(f"{node} returns {spec}, not one tensor")
    return spec


def specs_of(node: fx.Node) -> tuple[Spec, ...]:
    """Every tensor that a node returns."""
    made = node.meta[_KEY].spec
    return (made,) if type(made) is Spec else tuple(specs_in(made))


def arguments_of(node: fx.Node, op: OpOverload) -> Kwargs:
    """The arguments of an op by name, tensors as Specs; those left out at the schema's default."""
    args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), _made)
    return bind(op, args, kwargs)


def _made(node: fx.Node) -> Any:
    return meta_of(node).spec


def changed_specs(node: fx.Node) -> Iterator[Spec]:
    """The tensors that an op changes in place."""
    if isinstance(node.target, OpOverload) and (names := changed_arguments(node.target)):
        arguments = arguments_of(node, node.target)
        yield from specs_in([arguments[name] for name in names])


def is_executed(node: fx.Node) -> bool:
    """Whether the pass runs an op here. Taking one of several results is none."""
    return node.op == "call_function" and node.target is not operator.getitem


def executed(graph: fx.Graph) -> Iterator[fx.Node]:
    """The nodes whose op the pass runs, in order."""
    return filter(is_executed, graph.nodes)


def made_by(node: fx.Node) -> dict[Storage, Spec]:
    """The activations that a node made, each with the tensor that it returned there."""
    began, ended = meta_of(node).span
    return {
        spec.storage: spec
        for spec in specs_of(node)
        if spec.storage.is_activation and began < spec.storage.born < ended
    }


def output_of(graph: fx.Graph) -> fx.Node:
    """The node of what the pass returns."""
    return next(node for node in reversed(graph.nodes) if node.op == "output")


def times_of(node: fx.Node) -> int:
    """How often the pass executes this node's op: the multiplicity of the layer instances around it."""
    instances = meta_of(node).instances
    return instances[-1].times if instances else 1
