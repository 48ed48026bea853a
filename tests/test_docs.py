"""Every worked number in the documents is computed when the tests run."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]


class Fenced(doctest.DocTestParser):
    """Reads examples in fenced blocks: a fence ends what an example prints, as an empty line does."""

    def parse(self, string: str, name: str = "<string>") -> list[str | doctest.Example]:
        return super().parse(re.sub(r"^ *```.*$", "", string, flags=re.MULTILINE), name)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_the_examples_of_a_document_hold(document):
    failed, _ = doctest.testfile(str(document), module_relative=False, encoding="utf-8", parser=Fenced())
    assert failed == 0


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "README.md"], ids=lambda path: path.stem)
def test_examples_stand_in_fenced_blocks(document):
    outside = re.split(r"^ *```", document.read_text(encoding="utf-8"), flags=re.MULTILINE)[::2]
    assert not [line for part in outside for line in part.splitlines() if line.lstrip().startswith((">>> ", "... "))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_relative_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^):#]+)\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target


def test_the_guides_have_worked_numbers():
    for name in ("holistic_analysis", "layer_io_estimation_guide"):
        assert (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8").count(">>>") > 8


def test_every_file_that_the_architecture_names_is_there():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z]+/[\w./-]*)`", text))
    assert len(named) > 30
    assert not {name for name in named if not (ROOT / name.replace("NAME.json", "")).exists()}
