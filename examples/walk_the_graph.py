"""The op graph is a networkx.DiGraph: the heaviest path through a decoder, and the bytes between its modules.

Each node carries a PricedNode under "priced", each edge a PricedEdge under "flow".

python examples/walk_the_graph.py [PRESET]
"""

import sys
from collections import Counter

import networkx as nx

from fxmeter import annotate, decode, load_model


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


def main(name: str = "deepseek-ocr") -> None:
    """Print both for one decode step. Identical layers are in the graph once, with their number as ``times``."""
    graph = annotate(load_model(name), decode(4096, batch=8)).graph
    path = [graph.nodes[name]["priced"] for name in heaviest_path(graph)]
    moved = sum(node.cost.io_bytes for node in path)
    print(f"{graph.number_of_nodes()} nodes, {graph.number_of_edges()} edges")
    print(f"the heaviest path has {len(path)} ops and moves {moved:,} bytes; its five heaviest:")
    for node in sorted(path, key=lambda node: -node.cost.io_bytes)[:5]:
        print(f"  {node.cost.io_bytes:>13,}  {node.op:32} {node.module}")
    print("most bytes between modules:")
    for (producer, consumer), count in bytes_between_modules(graph).most_common(5):
        print(f"  {count:>13,}  {producer} -> {consumer}")


if __name__ == "__main__":
    main(*sys.argv[1:])
