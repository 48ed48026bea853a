"""Two networkx.DiGraphs of one pass: the ops and what flows between them, and the modules and what they contain.

Nodes of `stage.graph` carry a PricedNode under "priced", its edges a PricedEdge under "flow". Nodes of
`stage.module_graph` carry a ModuleCost, a PricedNode or a Weight under "part", its edges "times".

python examples/walk_the_graph.py [PRESET]
"""

import sys
from collections import Counter

import networkx as nx

from fxmeter import annotate, decode, load_model
from fxmeter.annotators.stages.containment import ModuleCost


def heaviest_path(graph: nx.DiGraph) -> list[str]:
    """The chain of ops that moves most bytes, each after the one before: what no scheduling can overlap."""
    weighted = nx.DiGraph()
    for producer, consumer in graph.edges:
        weighted.add_edge(producer, consumer, weight=graph.nodes[consumer]["priced"].cost.io_bytes)
    return nx.dag_longest_path(weighted)


def bytes_between_modules(graph: nx.DiGraph, depth: int = 4) -> Counter[tuple[str, str]]:
    """Bytes that modules read of each other's tensors, by the first ``depth`` parts of their paths."""
    flows: Counter[tuple[str, str]] = Counter()
    for producer, consumer, flow in graph.edges(data="flow"):
        made, read = graph.nodes[producer]["priced"], graph.nodes[consumer]["priced"]
        ends = [".".join(node.module.split(".")[:depth]) for node in (made, read)]
        if ends[0] != ends[1] and made.op not in ("weight", "cache", "input"):
            flows[ends[0] or "(root)", ends[1] or "(root)"] += flow.bytes * read.times
    return flows


def heaviest_line(tree: nx.DiGraph) -> list[ModuleCost]:
    """From the stage down into the module that moves most bytes, again and again."""
    line = [tree.nodes[""]["part"]]
    while True:
        inside = [(tree.nodes[child]["part"], times) for _, child, times in tree.out_edges(line[-1].path, data="times")]
        modules = [(part.cost.io_bytes * times, part) for part, times in inside if isinstance(part, ModuleCost)]
        if not modules:
            return line
        line.append(max(modules, key=lambda pair: pair[0])[1])


def main(name: str = "deepseek-ocr") -> None:
    """Print them for one decode step. Identical layers are in the graphs once, with their number as ``times``."""
    stage = annotate(load_model(name), decode(4096, batch=8))
    graph = stage.graph
    path = [graph.nodes[name]["priced"] for name in heaviest_path(graph)]
    moved = sum(node.cost.io_bytes for node in path)
    print(f"{graph.number_of_nodes()} nodes, {graph.number_of_edges()} edges")
    print(f"the heaviest path has {len(path)} ops and moves {moved:,} bytes; its five heaviest:")
    for node in sorted(path, key=lambda node: -node.cost.io_bytes)[:5]:
        print(f"  {node.cost.io_bytes:>13,}  {node.op:32} {node.module}")
    print("most bytes between modules:")
    for (producer, consumer), count in bytes_between_modules(graph).most_common(5):
        print(f"  {count:>13,}  {producer} -> {consumer}")
    print("into the module that moves most bytes, from the stage down:")
    for module in heaviest_line(stage.module_graph):
        print(f"  {module.cost.io_bytes:>14,}  {module.times:>2}x {module.path or '(the stage)'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
