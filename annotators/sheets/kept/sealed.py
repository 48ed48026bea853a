"""JSON documents that say themselves whether they are whole: ``{"sha256":"…", …}``, the hash of all that follows it."""

from __future__ import annotations

import hashlib
import json

from fxmeter.models.names import Document

_HEAD = b'{"sha256":"'
_DIGEST = 64


def sealed(data: Document) -> bytes:
    """The document, compact."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
    rest = b'",' + text[1:]
    return _HEAD + hashlib.sha256(rest).hexdigest().encode() + rest


def unsealed(document: bytes) -> Document:
    """Its data. Raises ValueError where it is damaged."""
    start = len(_HEAD) + _DIGEST
    head, rest = document[:start], document[start:]
    if head != _HEAD + hashlib.sha256(rest).hexdigest().encode():
        raise ValueError("the document is damaged: its hash is another")
    data: Document = json.loads(b"{" + rest[2:])
    return data
