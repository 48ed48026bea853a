"""Records as plain JSON data and back: dataclasses as objects of those fields that differ from their defaults."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fxmeter.models.names import Document

T = TypeVar("T")
NO_DOCUMENT = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What reading a document raises that is none of what it should be."""


def plain(value: Any) -> Any:
    """A record, or a tuple or mapping of them, as what JSON has."""
    if is_dataclass(value) and not isinstance(value, type):
        pairs = ((each, getattr(value, each.name)) for each in fields(value))
        return {each.name: plain(given) for each, given in pairs if not _is_default(each, given)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value


def made(kind: type[T], data: Any) -> T:
    """The record of type ``kind`` that ``data`` is of. Raises one of NO_DOCUMENT where it is of none."""
    result: T = _made(kind, data)
    return result


def _made(kind: Any, data: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if _is_record(kind):
        hints = _hints(kind)
        return kind(**{name: _made(hints[name], item) for name, item in data.items()})
    if origin in (Union, types.UnionType):
        return _one_of(arguments, data)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return tuple(_made(arguments[0], item) for item in data)
        return tuple(_made(part, item) for part, item in zip(arguments, data, strict=True))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: _made(arguments[1], item) for key, item in data.items()}
    if kind is Any or origin is Literal or _is_plain(kind, data):
        return data
    raise TypeError(f"{data!r:.80} is no {kind}")


def _one_of(kinds: tuple[Any, ...], data: Any) -> Any:
    """The record of the one of several types whose fields the data has."""
    for kind in kinds:
        if isinstance(data, dict) and _is_record(kind):
            if _required(kind) <= data.keys() <= _hints(kind).keys():
                return _made(kind, data)
        elif _is_plain(kind, data):
            return data
    raise TypeError(f"{data!r:.80} is none of {kinds}")


def _is_plain(kind: Any, data: Any) -> bool:
    """Whether a number, a text or None is of a kind; a whole number is a float too."""
    return kind is type(data) or (kind is float and type(data) is int)


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and is_dataclass(kind)


@cache
def _required(kind: Any) -> frozenset[str]:
    """Names of the fields that have no default."""
    return frozenset(e.name for e in fields(kind) if e.default is MISSING and e.default_factory is MISSING)


@cache
def _hints(kind: Any) -> Document:
    return get_type_hints(kind)


def _is_default(each: Field[Any], value: Any) -> bool:
    if each.default_factory is not MISSING:
        return bool(value == each.default_factory())
    return each.default is not MISSING and type(value) is type(each.default) and value == each.default
