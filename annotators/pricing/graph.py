"""A priced pass as a ``networkx.DiGraph``: what its nodes and edges carry, and how to read it.

Nodes are the pass's ops and the tensors that exist before it (inputs, weights, cache), by name and in program order; an
edge leads from what makes a tensor to what uses it. Each node carries one :class:`PricedNode` under the key "priced",
each edge one :class:`PricedEdge` under the key "flow":

    stage.graph.nodes["mm_3"]["priced"].cost.matmul_flops
    stage.graph.edges["view_7", "mm_3"]["flow"].bytes

:func:`priced_nodes`, :func:`priced_node` and :func:`priced_edge` read the same, with types. The graph itself has
``graph.graph["floor_io_bytes"]``: the least traffic of any implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import networkx as nx

from fxmeter.annotators.rules.cost import Fuses
from fxmeter.models.stage_cost import Cost, Size
from fxmeter.tracer.graph.spec import Spec

NODE = "priced"
EDGE = "flow"


@dataclass(frozen=True, slots=True)
class PricedNode:
    """An op of the pass, or a tensor that exists before it.

    Attributes:
        name: as in the ``torch.fx`` graph.
        op: the op's name, e.g. "aten.mm.default"; "input", "weight" or "cache" for a tensor.
        module: path of the module that executed it; "" for a tensor.
        times: identical executions in the pass (folded layers).
        cost: of one execution. Tensors cost nothing; their bytes are counted where they are read.
        operands: tensors that it reads.
        results: tensors that it returns.
        order: its place in the program, from 0.
        executed: whether the pass runs an op here; taking one of several results of an op is none.
        costed: False where no rule knows the op: ``cost`` then has the bytes of its tensors, and its FLOPs are unknown.
        fuses: how it may share a kernel.
        group: the first op of the kernel that it is in; None for what moves no bytes.
        steps: of a generation, how many of its steps execute it: ``cost`` is then that of all of them together, and
            shapes are those of the last. 1 for a single pass.
    """

    name: str
    op: str
    module: str
    times: int
    cost: Cost
    operands: tuple[Spec, ...]
    results: tuple[Spec, ...]
    order: int
    executed: bool = False
    costed: bool = True
    fuses: Fuses = "alone"
    group: str | None = None
    steps: int = 1

    @property
    def executions(self) -> int:
        """How often the whole stage executes it."""
        return self.times * self.steps

    @property
    def inputs(self) -> str:
        """What it reads, as text: "bfloat16[8, 4096], bfloat16[4096, 11008]"."""
        return ", ".join(map(str, self.operands))

    @property
    def outputs(self) -> str:
        """What it returns, as text."""
        return ", ".join(map(str, self.results))


@dataclass(frozen=True, slots=True)
class PricedEdge:
    """A tensor on its way from what made it to an op that uses it.

    Attributes:
        bytes: what the op reads of it; 0 where it only views it.
        tensor_bytes: the tensor's own size.
    """

    bytes: Size
    tensor_bytes: Size


@dataclass(frozen=True)
class PricedPass:
    """A priced pass before anybody asks for its graph, which costs as much as its sums.

    Attributes:
        nodes: what the graph's nodes carry, by name and in program order.
        floor_io_bytes: the least traffic of any implementation.
        flows: the graph's edges: what made a tensor, what uses it, and what the edge carries.
    """

    nodes: Mapping[str, PricedNode]
    floor_io_bytes: Size
    flows: Callable[[], Iterable[tuple[str, str, PricedEdge]]]

    @cached_property
    def graph(self) -> nx.DiGraph:
        """The graph that this module documents."""
        graph = nx.DiGraph(floor_io_bytes=self.floor_io_bytes)
        for node in self.nodes.values():
            add_node(graph, node)
        for flow in self.flows():
            add_edge(graph, *flow)
        return graph


def add_node(graph: nx.DiGraph, node: PricedNode) -> None:
    """Put a node into the graph."""
    graph.add_node(node.name, **{NODE: node})


def add_edge(graph: nx.DiGraph, source: str, target: str, edge: PricedEdge) -> None:
    """Put an edge into the graph."""
    graph.add_edge(source, target, **{EDGE: edge})


def priced_nodes(graph: nx.DiGraph) -> Iterator[PricedNode]:
    """What the nodes carry, in program order."""
    for _, node in graph.nodes(data=NODE):
        yield node


def priced_node(graph: nx.DiGraph, name: str) -> PricedNode:
    """What a node carries. Raises KeyError where there is none of that name."""
    node: PricedNode = graph.nodes[name][NODE]
    return node


def priced_edge(graph: nx.DiGraph, source: str, target: str) -> PricedEdge:
    """What an edge carries. Raises KeyError where there is none."""
    edge: PricedEdge = graph.edges[source, target][EDGE]
    return edge
