"""The ops that a prediction expects to see in a trace."""

from __future__ import annotations

from dataclasses import dataclass

from fxmeter.annotators.pricing.graph import PricedNode, priced_nodes
from fxmeter.annotators.stages.rollup import AnnotatedStage
from fxmeter.annotators.studies.measured.traces.reading import Shapes

Key = tuple[str, frozenset[tuple[int, ...]] | None]
"""What tells ops apart: a name, and the shapes of tensors that it reads, None where nobody knows them."""

_SAME = {"aten::_reshape_alias": "aten::view", "aten::_unsafe_view": "aten::view"}
"""Names that one op has here and there: on meta, and on a device."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A recorded op by its name in traces, and what was priced of it."""

    name: str
    shapes: frozenset[tuple[int, ...]]
    node: PricedNode

    @property
    def key(self) -> Key:
        """Its key, with shapes."""
        return self.name, self.shapes

    @property
    def stands_for_several(self) -> bool:
        """Whether it is an operator of fxmeter's own, which stands for code that runs as several ops."""
        return not self.name.startswith("aten::")


def expected_ops(stage: AnnotatedStage) -> tuple[Expected, ...]:
    """The ops of a stage whose layers are recorded one by one, in program order."""
    return tuple(_expected(node) for node in priced_nodes(stage.graph) if node.executed)


def _expected(node: PricedNode) -> Expected:
    space, _, rest = node.op.partition(".")
    shapes = frozenset(tuple(map(int, spec.shape)) for spec in node.operands if spec.shape)
    return Expected(name_in_trace(f"{space}::{rest.partition('.')[0]}"), shapes, node)


def name_in_trace(name: str) -> str:
    """The name by which an op is compared."""
    return _SAME.get(name, name)


def key_of(name: str, shapes: Shapes | None) -> Key:
    """The key of an op of a trace."""
    return name, None if shapes is None else frozenset(shapes)
