"""The page: one file of HTML with its script, its style, the plotting library and all data inside."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from importlib.resources import files
from importlib.util import find_spec
from itertools import accumulate

from fxmeter.annotators.page.content import Alternative, Start, content_of
from fxmeter.models.devices import Device
from fxmeter.models.errors import FxmeterError

__all__ = ["Alternative", "Start", "check_installed", "page_html"]

MOST_BYTES = 6 * 10**6
"""What a page may take: what a mail still takes with it."""


def check_installed() -> None:
    """Raise FxmeterError where what a page is made with is not installed."""
    missing = [name for name in ("jinja2", "plotly") if find_spec(name) is None]
    if missing:
        raise FxmeterError(f"a page needs {' and '.join(missing)}: pip install 'fxmeter[page]'")


def page_html(alternatives: Sequence[Alternative], devices: Iterable[Device], start: Start) -> str:
    """The page as text.

    Args:
        alternatives: closed forms, of which the page evaluates the one that is chosen in it.
        devices: those that can be chosen.
        start: what it shows first.

    Raises:
        NoFormula: a stage has no closed form. FxmeterError: jinja2 or plotly is not installed, or the page too large.
    """
    check_installed()
    from jinja2 import Environment, StrictUndefined

    content, formulas = content_of(alternatives, devices, start)
    style, sheets, page, template = (
        files(__package__).joinpath(name).read_text(encoding="utf-8")
        for name in ("page.css", "sheets.js", "page.js", "page.html.jinja")
    )
    plotly = files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
    each = [
        _packed(f"SHEETS.push({{...{json.dumps(sheet, separators=(',', ':'))}, formulas: {text}}});")
        for sheet, text in zip(content.pop("sheets"), formulas, strict=True)
    ]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    rendered = environment.from_string(template).render(
        content=content, packed=[_packed(plotly), *each], style=style, scripts=[sheets, page]
    )
    _check_size(len(rendered.encode()), [len(text) for text in each])
    return rendered


def _packed(script: str) -> str:
    """A script as the page has it: compressed, in letters."""
    return b64encode(zlib.compress(script.encode(), 9)).decode()


def _check_size(whole: int, sheets: Sequence[int]) -> None:
    """Raise FxmeterError, with how many of the sheets fit, where a page is too large to send."""
    if whole <= MOST_BYTES:
        return
    room = MOST_BYTES - (whole - sum(sheets))
    fit = sum(total <= room for total in accumulate(sheets))
    raise FxmeterError(
        f"a page holds {MOST_BYTES / 1e6:g} MB and this one would take {whole / 1e6:.1f}: {fit} of its {len(sheets)} "
        "cost sheets fit, one for each stage, attention and combination of --also; name fewer of them"
    )
