"""The import graph in figures: how many rooms, arrows and floors, what runs in circles, which files are long; and how
often a type is ``Any``.

python -m validation.structure [CHECKOUT]
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

import networkx as nx

FLOORS = ("models", "tracer", "annotators")
TOP = "annotators"
"""The floor whose rooms the top view shows one by one; those below it are one room each."""


def files_of(root: Path) -> dict[str, Path]:
    """Module → file, of the three floors: "annotators.pricing.price" → …/annotators/pricing/price.py."""
    return {_module(file.relative_to(root)): file for floor in FLOORS for file in sorted((root / floor).rglob("*.py"))}


def _module(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(file: Path, modules: dict[str, Path]) -> set[str]:
    """Full names that a file imports, wherever in it, without ``fxmeter.``; of ours the module, not the name in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {_longest(name.removeprefix("fxmeter."), modules) for name in names}


def _longest(name: str, modules: dict[str, Path]) -> str:
    while name not in modules and name.partition(".")[0] in FLOORS and "." in name:
        name = name.rpartition(".")[0]
    return name


def import_graph(root: Path) -> nx.DiGraph[str]:
    """An arrow from each module to each that it imports. Imports in functions and under ``TYPE_CHECKING`` count."""
    modules = files_of(root)
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(modules)
    for name, file in modules.items():
        graph.add_edges_from((name, other) for other in imported(file, modules) if other in modules and other != name)
    return graph


def top_view(graph: nx.DiGraph[str]) -> nx.DiGraph[str]:
    """The same between rooms: the files and folders of the top floor, and each floor below it as one."""
    view: nx.DiGraph[str] = nx.DiGraph()
    view.add_nodes_from(map(_room, graph))
    view.add_edges_from((_room(a), _room(b)) for a, b in graph.edges if _room(a) != _room(b))
    return view


def _room(module: str) -> str:
    floor, *rest = module.split(".")
    return f"{floor}.{rest[0]}" if floor == TOP and rest else floor


def circles(graph: nx.DiGraph[str]) -> list[list[str]]:
    """Modules that import one another, directly or not."""
    return [sorted(component) for component in nx.strongly_connected_components(graph) if len(component) > 1]


def floors(view: nx.DiGraph[str]) -> int:
    """Rooms above one another on the longest way down; a circle is on one floor."""
    return len(nx.dag_longest_path(nx.condensation(view)))


def untyped(file: Path) -> int:
    """How often a file says ``Any``, imports of the name apart."""
    return sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(ast.parse(file.read_text("utf-8"))))


def summary(root: Path) -> dict[str, str]:
    """What the module prints."""
    graph, files = import_graph(root), files_of(root)
    view = top_view(graph)
    folders = Counter(file.parent.relative_to(root) for name, file in files.items() if file.name != "__init__.py")
    lines = {name: len(file.read_text(encoding="utf-8").splitlines()) for name, file in files.items()}
    longest = max(lines, key=lines.__getitem__)
    fullest, most = folders.most_common(1)[0]
    loops = circles(graph)
    return {
        "rooms at the top view": str(view.number_of_nodes()),
        "floors": str(floors(view)),
        "arrows": str(view.number_of_edges()),
        "circles": str(len(loops)) + (f" ({', '.join(f'{len(loop)} files' for loop in loops)})" if loops else ""),
        "files": str(len(files)),
        "files in the fullest folder": f"{most} ({fullest})",
        "lines": f"{sum(lines.values()):,}",
        "longest file": f"{lines[longest]} ({longest})",
        "files over 300 lines": str(sum(count > 300 for count in lines.values())),
        "Any per 1,000 lines": f"{1000 * sum(map(untyped, files.values())) / sum(lines.values()):.1f}",
    }


def main(checkout: str = ".") -> None:
    """Print the figures of a checkout."""
    for name, value in summary(Path(checkout)).items():
        print(f"{name:28}{value}")


if __name__ == "__main__":
    main(*sys.argv[1:])
