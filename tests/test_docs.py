"""Every worked number in the documents is computed when the tests run."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_the_examples_of_a_document_hold(document):
    failed, _ = doctest.testfile(str(document), module_relative=False, encoding="utf-8")
    assert failed == 0


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_relative_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^):#]+)\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target


def test_the_guides_have_worked_numbers():
    for name in ("holistic_analysis", "layer_io_estimation_guide"):
        assert (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8").count(">>>") > 8
