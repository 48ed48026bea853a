"""Write docs/terms.md from the tables of figures and terms: make terms"""

from __future__ import annotations

from pathlib import Path

from fxmeter.annotators.views.terms import terms_markdown

if __name__ == "__main__":
    (Path(__file__).parent / "terms.md").write_text(terms_markdown(), encoding="utf-8")
