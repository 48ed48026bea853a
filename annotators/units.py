"""Units that people read and type: which one suits a value, with how many digits, and what a text with one means.

Operations, bytes moved and times go by thousands (GFLOP, GB, ms), memory by 1024 (GiB), sizes typed as 4k or 1M by 1024
too.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from typing import Literal, TypeAlias, TypeVar

from fxmeter.models.errors import ScenarioError
from fxmeter.models.figures import Unit
from fxmeter.models.sizes import LARGEST_SIZE

Kind: TypeAlias = Unit | Literal["share", "second", "parameter"]

_Value = TypeVar("_Value", bound=Hashable)

MOST_VALUES = 10_000
"""Of a list that somebody types; more are taken for a slip."""

_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z")
_UNITS: dict[str, list[tuple[float, str]]] = {
    "second": [(1e-9, "ns"), (1e-6, "us"), (1e-3, "ms"), (1, "s")],
    "flop": [(1000**power, f"{prefix}FLOP") for power, prefix in enumerate(_PREFIXES)],
    "byte": [(1000**power, f"{prefix}B") for power, prefix in enumerate(_PREFIXES)],
    "memory": [(1024**power, f"{prefix.upper()}iB" if prefix else "B") for power, prefix in enumerate(_PREFIXES)],
    "parameter": [(1, ""), (1e3, "k"), (1e6, "M"), (1e9, "B"), (1e12, "T")],
}
_BYTES = {name.lower(): int(size) for kind in ("byte", "memory") for size, name in _UNITS[kind]}
_SECONDS = {name: size for size, name in _UNITS["second"]}
_TOKENS = {"": 1, "k": 2**10, "m": 2**20}


def unit_of(value: float, kind: str) -> tuple[float, str]:
    """The largest unit of which ``value`` is at least one: what one of it is, and its name."""
    units = _UNITS[kind]
    return next(((size, name) for size, name in reversed(units) if value >= size), units[0])


def quantity(value: float, kind: Kind) -> str:
    """A figure with its unit, four digits of it. "ratio" is a plain number, "share" one as a percentage."""
    if kind == "share":
        return f"{value:.1%}"
    if kind == "ratio":
        return f"{value:,.1f}" if value >= 10 else f"{value:.3f}"
    if kind not in _UNITS:
        return f"{four_digits(value)} {kind}"
    size, name = unit_of(value, kind)
    return f"{f'{value:,.0f}' if size == 1 and kind != 'second' else four_digits(value / size)} {name}"


def percentage(share: float) -> str:
    """A share with two digits: "93%", "4.2%"."""
    return f"{share:.0%}" if share >= 0.0995 else f"{share:.1%}"


def duration(seconds: float) -> str:
    """A time with four digits: "12.34 ms"."""
    return quantity(seconds, "second")


def duration_as_typed(seconds: float) -> str:
    """A time that somebody gave, with no more digits than that: "50 ms", "1.5 s"."""
    size, name = unit_of(seconds, "second")
    return f"{seconds / size:g} {name}"


def in_unit(value: float, unit: str) -> str:
    """Four digits of a value in a unit named: 989.4e12 in "TFLOP" is "989.4". For columns with the unit above."""
    sizes = {name: size for table in _UNITS.values() for size, name in table}
    return four_digits(value / sizes[unit])


def four_digits(value: float) -> str:
    """Four digits, or all before the point where there are more; of a small value more zeros behind the point."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{1 if value >= 100 else 2 if value >= 10 else 3 if value >= 0.1 else 5}f}"


def read_size(text: str, least: int, what: str = "a size") -> int:
    """A whole number, "4k" and "1M" being 4·1024 and 1024·1024; a ScenarioError for another text."""
    parts = re.fullmatch(r"([+-]?\d+)([kKmM]?)", text.strip().replace("_", ""))
    if parts is None:
        raise ScenarioError(f"{text.strip()!r} is not a whole number")
    number = int(parts[1]) * _TOKENS[parts[2].lower()]
    if number < least:
        raise ScenarioError(f"{number} is too small: {what} is at least {least}")
    if number > LARGEST_SIZE:
        raise ScenarioError(f"{number} is too large: {what} is at most {LARGEST_SIZE:,}")
    return number


def size_as_typed(size: int) -> str:
    """A size as :func:`read_size` takes it: 131072 is "128k", 448 is "448"."""
    name, unit = next((name, unit) for name, unit in reversed(_TOKENS.items()) if size % unit == 0)
    return f"{size // unit:,}{name.upper() if name == 'm' else name}"


def read_bytes(text: str) -> int:
    """Whole bytes of "80GiB" (2^30 bytes each) or "24GB" (10^9); a ScenarioError for a text without number or unit."""
    parts = re.fullmatch(r"(\d+)(?:\.(\d+))?\s*([A-Za-z]+)", text.strip())
    if parts is None or parts[3].lower() not in _BYTES:
        raise ScenarioError(f"{text!r} needs a number and a unit, such as 80GiB (2^30 bytes) or 24GB (10^9)")
    decimals = parts[2] or ""
    amount = int(parts[1] + decimals) * _BYTES[parts[3].lower()] // 10 ** len(decimals)
    if amount == 0:
        raise ScenarioError(f"{text!r} is no memory at all")
    return amount


def read_number(text: str) -> float:
    """A finite number above 0, or a ScenarioError."""
    try:
        number = float(text)
    except ValueError:
        raise ScenarioError(f"{text!r} is not a number") from None
    if not 0 < number < float("inf"):
        raise ScenarioError(f"{text!r} must be above 0, and finite")
    return number


def read_share(text: str) -> float:
    """A share of "1%" or "0.01", from 0 to less than 1; a ScenarioError for another text."""
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", text.strip())
    if parts is None or not (share := float(parts[1]) / (100 if parts[2] else 1)) < 1:
        raise ScenarioError(f"{text!r} is not a share such as 1% or 0.01")
    return share


def read_seconds(text: str, unit: str = "") -> float:
    """Seconds of "500ms", "0.5s" or "80us", or of a number without a unit in ``unit``; a ScenarioError without one."""
    parts = re.fullmatch(r"([-+.\de]+)\s*(ns|us|ms|s|)", text.strip(), re.IGNORECASE)
    if parts is None:
        raise ScenarioError(f"{text!r} is not a time such as 500ms or 0.5s")
    number, named = read_number(parts[1]), parts[2].lower() or unit
    if not named:
        raise ScenarioError(f"{text!r} has no unit; give {parts[1]}ms or {parts[1]}s")
    return number * _SECONDS[named]


def read_sizes(text: str, least: int) -> tuple[int, ...]:
    """ "1,2,4", "512:65536:512" (both ends, every 512), "1k:128k:*2" (each twice the last), or a mix with commas.

    Raises ScenarioError, as do the other readers.
    """
    return items_of(text, lambda item: _sizes(item, least), str)


def read_pair(text: str, example: str) -> tuple[int, int]:
    """Two whole numbers with an x between them, such as ``example``."""
    parts = re.fullmatch(r"(\d+)[xX×](\d+)", text.strip())
    if parts is None:
        raise ScenarioError(f"{text.strip()!r} is not of the form {example}")
    return read_size(parts[1], 0), read_size(parts[2], 0)


def items_of(text: str, read: Callable[[str], Iterator[_Value]], show: Callable[[_Value], str]) -> tuple[_Value, ...]:
    """What ``read`` makes of the items of a list with commas, each value once; ``show`` names one that comes twice."""
    values: list[_Value] = []
    for item in text.split(","):
        if not item.strip():
            raise ScenarioError(f"an empty item in {text!r}")
        values += itertools.islice(read(item.strip()), MOST_VALUES + 1)
        if len(values) > MOST_VALUES:
            raise ScenarioError(f"{text!r} has more than {MOST_VALUES:,} values; use a larger step")
    return distinct("the value", tuple(values), show)


def distinct(what: str, values: tuple[_Value, ...], show: Callable[[_Value], str]) -> tuple[_Value, ...]:
    """The values themselves; a ScenarioError names one that comes twice."""
    for value, count in Counter(values).items():
        if count > 1:
            raise ScenarioError(f"{what} {show(value)} comes twice")
    return values


def _sizes(item: str, least: int) -> Iterator[int]:
    parts = item.split(":")
    if len(parts) == 1:
        return iter([read_size(item, least)])
    if len(parts) > 3:
        raise ScenarioError(f"{item!r} is not FIRST:LAST or FIRST:LAST:STEP")
    first, last = read_size(parts[0], least), read_size(parts[1], least)
    if first > last:
        raise ScenarioError(f"{item!r} runs backwards; write the smaller end first")
    if len(parts) == 2:
        return iter(range(first, last + 1))
    if not parts[2].startswith("*"):
        return iter(range(first, last + 1, read_size(parts[2], 1, what="a step")))
    factor = read_size(parts[2][1:], 2, what="a factor")
    if first == 0:
        raise ScenarioError(f"{item!r} never leaves 0; begin at 1")
    return _geometric(first, last, factor)


def _geometric(first: int, last: int, factor: int) -> Iterator[int]:
    while first <= last:
        yield first
        first *= factor
