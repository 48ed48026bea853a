"""Floors and rooms: imports go down only, no circles, and every file has a room.

The three floors are models, tracer and annotators. Inside a floor each room (a folder, or a file beside the folders)
imports only from the rooms below it; inside a room files may import one another in any order but in no circle. All
imports count: those in functions and those under ``TYPE_CHECKING`` too.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from validation import structure

ROOT = Path(__file__).parent.parent
FLOORS = ["models", "tracer", "annotators"]
ROOMS = {
    "models": [
        "choices",
        "errors",
        "names",
        "model_info",
        "sizes",
        "devices",
        "formats",
        "deployment",
        "figures",
        "stage_cost",
        "terms",
        "scenario",
        "mixed_step",
        "presets",
        "catalogue",
        "source",
        "version",
        "page",
        "hand",
    ],
    "tracer": ["private_names", "private", "graph", "state", "operators", "capture", "serving", "shard", "run", "load"],
    "annotators": [
        "symbolic",
        "units",
        "conventions",
        "rules",
        "pricing",
        "timing",
        "sheets",
        "stages",
        "shapes",
        "closed",
        "api",
        "studies",
        "documents",
        "differences",
        "plots",
        "views",
        "interactive",
        "page",
        "cli",
    ],
}
"""The rooms of each floor, the lowest first."""

MODULES = structure.files_of(ROOT)
NAMES = {file: name for name, file in MODULES.items()}
FILES = sorted(NAMES)
MOST_FILES = 15
MOST_LINES = 300


def imported(file: Path) -> set[str]:
    return structure.imported(file, MODULES)


def room_of(module: str) -> tuple[int, int]:
    """(floor, room) as numbers, the lowest first; a floor's own face, its ``__init__``, is above its rooms."""
    floor, *rest = module.split(".")
    rooms = ROOMS[floor]
    return FLOORS.index(floor), rooms.index(rest[0]) if rest else len(rooms)


def ids(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_every_file_is_in_a_room(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    assert parts[1] in (*ROOMS[parts[0]], "__init__"), f"{ids(file)} is in no room of tests/test_architecture.py"


def test_tests_are_in_the_rooms_of_what_they_test():
    rooms = {floor / room for floor in map(Path, FLOORS) for room in ROOMS[str(floor)]} | set(map(Path, FLOORS))
    beside = {Path(), Path("validation")}
    folders = {file.parent.relative_to(ROOT / "tests") for file in (ROOT / "tests").rglob("test_*.py")}
    homes = {Path(*folder.parts[:2]) for folder in folders}
    assert homes <= rooms | beside


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_imports_go_down_only(file):
    own = room_of(NAMES[file])
    ours = [name for name in imported(file) if name in MODULES]
    assert not [name for name in ours if room_of(name) > own]


def test_there_is_no_circle():
    assert structure.circles(structure.import_graph(ROOT)) == []


def test_a_room_has_about_ten_files_and_no_file_is_long():
    for folder in {file.parent for file in FILES}:
        assert len([file for file in folder.glob("*.py") if file.name != "__init__.py"]) <= MOST_FILES, folder
    long = {ids(file): lines for file in FILES if (lines := len(file.read_text().splitlines())) > MOST_LINES}
    assert not long


def test_a_face_is_short():
    for file in FILES:
        if file.name == "__init__.py":
            assert len(file.read_text().splitlines()) <= 65, file


@pytest.mark.parametrize("file", [f for f in FILES if ids(f).startswith("models")], ids=ids)
def test_models_import_only_the_standard_library(file):
    outside = {name.partition(".")[0] for name in imported(file) if name not in MODULES}
    assert outside <= set(sys.stdlib_module_names) | {"checkout"}


@pytest.mark.parametrize("file", sorted((ROOT / "annotators" / "rules").rglob("*.py")), ids=lambda f: f.name)
def test_rules_see_no_graph_and_no_transformers(file):
    source = file.read_text(encoding="utf-8")
    assert not [name for name in imported(file) if name.startswith("transformers")]
    assert "fx.Node" not in source
    assert "torch.Tensor" not in source


@pytest.mark.parametrize("package", ["fxmeter", "fxmeter.models", "fxmeter.tracer", "fxmeter.annotators"])
def test_all_names_exist(package):
    module = __import__(package, fromlist=["__all__"])
    assert len(set(module.__all__)) == len(module.__all__) > 0
    for name in module.__all__:
        assert getattr(module, name) is not None
