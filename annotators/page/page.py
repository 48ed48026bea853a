"""The page: one file of HTML with its script, its style, the plotting library and all data inside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files
from importlib.util import find_spec

from fxmeter.annotators.page.content import Alternative, Start, content_of
from fxmeter.models.devices import Device
from fxmeter.models.errors import FxmeterError

__all__ = ["Alternative", "Start", "check_installed", "page_html"]


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
        NoFormula: a stage has no closed form. FxmeterError: jinja2 or plotly is not installed.
    """
    check_installed()
    from jinja2 import Environment, StrictUndefined

    content, formulas = content_of(alternatives, devices, start)
    style, sheets, page, template = (
        files(__package__).joinpath(name).read_text(encoding="utf-8")
        for name in ("page.css", "sheets.js", "page.js", "page.html.jinja")
    )
    plotly = files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment.from_string(template).render(
        content=content, formulas=formulas, style=style, scripts=[plotly, sheets, page]
    )
