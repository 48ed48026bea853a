"""Which fields of a config are likely at fault, where the code that reads them only says that something is."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fxmeter.models.names import Fields

_SIZE = re.compile(r"(size|heads?|dim|rank|layers?|experts?|positions?|embeddings|window|groups?|length|width|labels)$")
_MOST_NAMED = 3


def suspects(fields: Fields, usual: Fields | None = None, said: str = "") -> str:
    """ "; hidden_size is -1, head_dim is 'x'": fields that are no size or no number where the ``usual`` ones are, or
    whose word stands in what was ``said``; nothing where that names one of them already."""
    odd = [(name, value) for name, value, other in _nested(fields, usual or {}) if _is_odd(name, value, other, said)]
    if any(re.search(rf"\b{re.escape(name.rpartition('.')[2])}\b", said) for name, _ in odd):
        return ""
    found = ", ".join(f"{name} is {_shown(value)}" for name, value in odd[:_MOST_NAMED])
    return f"; {found}" if found else ""


def _nested(fields: Fields, usual: Fields, inside: str = "") -> Iterator[tuple[str, object, object]]:
    """Dotted name of each field, its value and the usual one."""
    for name, value in fields.items():
        if isinstance(name, str) and name.isidentifier():
            other = usual.get(name)
            yield f"{inside}{name}", value, other
            if isinstance(value, dict):
                yield from _nested(value, other if isinstance(other, dict) else {}, f"{inside}{name}.")


def _is_odd(name: str, value: object, usual: object, said: str) -> bool:
    is_size = _SIZE.search(name) is not None
    match value:
        case str():
            wrong = (
                is_size or isinstance(usual, int | float | dict | list) or name.endswith("_config") or _is_number(value)
            )
            return wrong or f"'{value}'" in said
        case bool():
            return is_size and isinstance(usual, int | float) and not isinstance(usual, bool)
        case int() | float():
            least = 0 if name.endswith("window") or (isinstance(usual, int | float) and usual > 0) else -1
            return isinstance(usual, dict | list) or name.endswith("_config") or (is_size and not least < value < 2**40)
        case None:
            return (is_size and isinstance(usual, int | float)) or name.endswith(".rope_type")
    return "dtype" in name or (usual is None and name.endswith("_config")) or not isinstance(usual, type(value) | None)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
