"""The figures of an import graph, on a tree whose figures one can count."""

from __future__ import annotations

import pytest

from validation.structure import circles, floors, import_graph, summary, top_view

FILES = {
    "models/__init__.py": "",
    "models/size.py": "import math\n",
    "tracer/record.py": "from fxmeter.models.size import SIZE\n",
    "annotators/__init__.py": "",
    "annotators/price/node.py": "from fxmeter.tracer import record\n",
    "annotators/price/graph.py": "def f():\n    from fxmeter.annotators.price.node import NODE\n",
    "annotators/total.py": "if TYPE_CHECKING:\n    from fxmeter.annotators.price import graph\n",
}


@pytest.fixture
def tree(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_arrows_in_functions_and_for_types_count(tree):
    assert set(import_graph(tree).edges) == {
        ("tracer.record", "models.size"),
        ("annotators.price.node", "tracer.record"),
        ("annotators.price.graph", "annotators.price.node"),
        ("annotators.total", "annotators.price.graph"),
    }


def test_floors_are_the_longest_way_down(tree):
    view = top_view(import_graph(tree))
    assert set(view.edges) == {
        ("annotators.total", "annotators.price"),
        ("annotators.price", "tracer"),
        ("tracer", "models"),
    }
    assert floors(view) == 4


def test_a_circle_is_named_and_is_one_floor(tree):
    (tree / "annotators/price/node.py").write_text("from annotators.total import TOTAL\nimport fxmeter.tracer.record\n")
    graph = import_graph(tree)
    assert circles(graph) == [["annotators.price.graph", "annotators.price.node", "annotators.total"]]
    assert floors(top_view(graph)) == 3
    assert summary(tree)["circles"] == "1 (3 files)"


def test_any_is_counted_where_it_is_a_type(tree):
    (tree / "models/size.py").write_text("from typing import Any\n\n\ndef f(a: Any, b: dict[str, Any]): ...\n")
    assert summary(tree)["Any per 1,000 lines"] == f"{1000 * 2 / 10:.1f}"
