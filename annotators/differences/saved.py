"""Saved reports."""

from __future__ import annotations

import json
from pathlib import Path

from fxmeter.annotators.documents.head import SCHEMA_VERSION
from fxmeter.models.errors import FxmeterError
from fxmeter.models.names import Document
from fxmeter.models.stage_cost import StageCost

_HEAD_BYTES = 4096


REPORT = "fxmeter report MODEL --json FILE"


def is_report(path: str) -> bool:
    """Whether ``path`` is a file that a report or a lock may be in: JSON, but no config of a model."""
    file = Path(path)
    return file.is_file() and b'"schema_version"' in _beginning(file)


def read_report(path: Path, made_by: str = REPORT) -> Document:
    """The document of ``fxmeter report --json FILE``, or of a lock, with the figures that follow from those in it.

    Args:
        path: the file.
        made_by: the command that writes such a file, for what is said of one that is none.

    Raises:
        FxmeterError: for a file that is not there, cut, no report, or of another schema.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        hint = (
            ""
            if path.suffix in (".json", ".lock")
            else "; a model is priced first, as in annotate(model, decode(4096))"
        )
        raise FxmeterError(f"{path}: {error.strerror or error}{hint}") from None
    except (ValueError, RecursionError) as error:
        raise FxmeterError(f"{path}: is no whole JSON file ({error}); write it again with `{made_by}`") from None
    if not isinstance(document, dict) or "schema_version" not in document:
        raise FxmeterError(f"{path}: is not what `{made_by}` writes")
    if document["schema_version"] != SCHEMA_VERSION:
        raise FxmeterError(
            f"{path}: is of schema {document['schema_version']}, and this fxmeter reads {SCHEMA_VERSION}; "
            "write it again with this version"
        )
    if not isinstance(document.get("stages"), list):
        raise FxmeterError(f"{path}: has no stages; it is not what `{made_by}` writes")
    try:
        document |= {name: dict(document[name]) for name in ("model", "conventions", "versions")}
        return document | {"stages": [_whole(stage, "lock" in document) for stage in document["stages"]]}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise FxmeterError(f"{path}: is not whole ({why}); write it again with `{made_by}`") from None


def _whole(stage: Document, derive: bool) -> Document:
    """A stage whose costs are numbers, with all that is derived of them."""

    def whole(part: Document) -> Document:
        cost = part["cost"]
        for name, value in cost.items():
            if not isinstance(value, int | float):
                raise TypeError(f"{name} is {value!r}, no number")
        return {**part, "cost": StageCost(**cost).to_dict()} if derive else part

    parts = {name: [whole(row) for row in stage[name]] for name in ("modules", "ops")}
    return {**whole(stage), **parts}


def _beginning(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(_HEAD_BYTES)
    except OSError:
        return b""
