"""Saved reports."""

from __future__ import annotations

import json
from pathlib import Path

from fxmeter.annotators.documents.head import SCHEMA_VERSION
from fxmeter.models.errors import FxmeterError
from fxmeter.models.names import Document


def is_report(path: str) -> bool:
    """Whether ``path`` is a file that a report may be in: JSON, but no config of a model."""
    file = Path(path)
    return file.is_file() and file.suffix == ".json" and b'"schema_version"' in _beginning(file)


def read_report(path: Path) -> Document:
    """The document of ``fxmeter report --json FILE``.

    Raises:
        FxmeterError: for a file that is not there, cut, no report, or of another schema.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise FxmeterError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise FxmeterError(f"{path}: is no whole JSON file ({error}); write it again with `report --json`") from None
    if not isinstance(document, dict) or "schema_version" not in document:
        raise FxmeterError(f"{path}: is no report; write one with `fxmeter report MODEL --json FILE`")
    if document["schema_version"] != SCHEMA_VERSION:
        raise FxmeterError(
            f"{path}: is of schema {document['schema_version']}, and this fxmeter reads {SCHEMA_VERSION}; "
            "write it again with this version"
        )
    if not isinstance(document.get("stages"), list):
        raise FxmeterError(f"{path}: has no stages; it is not what `fxmeter report MODEL --json FILE` writes")
    return document


def _beginning(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(200)
    except OSError:
        return b""
