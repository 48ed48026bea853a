"""The three floors: imports go down only, and models/ needs nothing but Python."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ["models", "tracer", "annotators"]
FILES = [(floor, file) for floor in FLOORS for file in sorted((ROOT / floor).rglob("*.py"))]


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize(("floor", "file"), FILES, ids=[str(f.relative_to(ROOT)) for _, f in FILES])
def test_imports_go_down_only(floor, file):
    above = set(FLOORS[FLOORS.index(floor) + 1 :])
    assert not imported(file) & above


@pytest.mark.parametrize("file", [f for floor, f in FILES if floor == "models"], ids=lambda f: f.name)
def test_models_import_only_the_standard_library(file):
    assert imported(file) <= set(sys.stdlib_module_names) | {"models"}


@pytest.mark.parametrize("file", sorted((ROOT / "annotators" / "rules").glob("*.py")), ids=lambda f: f.name)
def test_rules_see_no_graph_and_no_transformers(file):
    source = file.read_text(encoding="utf-8")
    assert "transformers" not in imported(file)
    assert "fx.Node" not in source
    assert "torch.Tensor" not in source


@pytest.mark.parametrize("package", ["models", "tracer", "annotators"])
def test_all_names_exist(package):
    module = __import__(package)
    assert len(set(module.__all__)) == len(module.__all__) > 0
    for name in module.__all__:
        assert getattr(module, name) is not None
