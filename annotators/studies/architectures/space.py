"""A space of architectures: a config, the fields of it that vary, and every combination of their values."""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from transformers import PreTrainedConfig

from fxmeter.annotators.studies.architectures.expressions import Expression, Value, expression
from fxmeter.annotators.units import read_sizes
from fxmeter.models.errors import ScenarioError
from fxmeter.models.names import Document, Fields, near
from fxmeter.tracer.load.loading import load_config
from fxmeter.tracer.load.reading import read_fields

Choices = str | int | float | bool | None | Iterable[Any]
"""Values of one field: a text as ``--set`` has it, one value, or several."""

_SIZES = re.compile(r"[+-]?[\d_]+[kKmM]?(:.*)?")
_CHOOSES_CODE = ("model_type", "auto_map", "architectures")


@dataclass(frozen=True, slots=True)
class Axis:
    """A field, and what it is set to in turn: values, or expressions in other fields."""

    field: str
    choices: tuple[Value | Expression, ...]

    @property
    def reads(self) -> frozenset[str]:
        """The fields that its expressions are in."""
        return frozenset().union(*(choice.names for choice in self.choices if isinstance(choice, Expression)))


@dataclass(frozen=True, slots=True)
class Space:
    """``base``, the fields of a config, with those of ``axes`` changed, in every combination.

    ``defaults`` has the value of each field that an expression may read where no axis sets it.
    """

    base: Fields
    axes: tuple[Axis, ...]
    defaults: Fields

    def __len__(self) -> int:
        return math.prod(len(axis.choices) for axis in self.axes)

    def combinations(self) -> Iterator[tuple[dict[str, Value], str | None]]:
        """The values of every combination, the last axis fastest; why they cannot be computed, where they cannot."""
        order = self._order()
        for choices in itertools.product(*(axis.choices for axis in self.axes)):
            chosen = dict(zip((axis.field for axis in self.axes), choices, strict=True))
            try:
                yield self._computed(chosen, order), None
            except ScenarioError as error:
                texts = {name: each.text if isinstance(each, Expression) else each for name, each in chosen.items()}
                yield texts, str(error)

    def _computed(self, chosen: Mapping[str, Value | Expression], order: Iterable[str]) -> dict[str, Value]:
        known = dict(self.defaults)
        for field in order:
            choice = chosen[field]
            known[field] = choice.value(known) if isinstance(choice, Expression) else choice
        return {field: known[field] for field in chosen}

    def _order(self) -> list[str]:
        """The axes' fields, each after those that it is computed from."""
        fields = {axis.field for axis in self.axes}
        try:
            return list(TopologicalSorter({axis.field: axis.reads & fields for axis in self.axes}).static_order())
        except CycleError as error:
            raise ScenarioError(f"fields that depend on one another: {' on '.join(error.args[1])}") from None


def space_of(model: str, sets: Mapping[str, Choices], also: Iterable[Expression] = ()) -> Space:
    """The space around a preset, a folder or config.json, or a Hub id.

    Args:
        model: whose config has the fields that are not set.
        sets: field → values. A text is a list of whole numbers and ranges (``16:64:16``, ``1k:8k:*2``), of expressions
            (``8*hidden_size//3``), or of words where the config has one.
        also: conditions, which may read fields too.

    Raises:
        ScenarioError: a field that the config does not have, or values that are none.
        ModelError: no such model, or no config.
    """
    base = read_fields(model)[0]
    config = load_config(model)
    axes = tuple(_axis(name, choices, config, base) for name, choices in sets.items())
    read = frozenset().union(*(axis.reads for axis in axes), *(condition.names for condition in also))
    defaults = {name: value_of(name, config, base) for name in sorted(read) if _has(name, config, base)}
    for axis in axes:
        for name in axis.reads - defaults.keys():
            raise ScenarioError(f"--set {axis.field}: {_unknown(name, config, base)}")
    space = Space(base, axes, defaults)
    space._order()
    return space


def changed(base: Fields, values: Fields) -> Document:
    """The fields of a config with some set to other values; ``text_config.hidden_size`` is one inside of another."""
    fields = copy.deepcopy(dict(base))
    for name, value in values.items():
        *path, last = name.split(".")
        place = fields
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return fields


def with_sets(model: str, sets: Mapping[str, str]) -> Document:
    """The fields of a model's config with some set to one value each. Raises as :func:`space_of` does."""
    space = space_of(model, sets)
    if many := [axis.field for axis in space.axes if len(axis.choices) > 1]:
        raise ScenarioError(f"--set {many[0]} has many values; `fxmeter explore` goes through them")
    values, refused = next(space.combinations())
    if refused is not None:
        raise ScenarioError(refused)
    name = f"{model} with {', '.join(f'{field}={value}' for field, value in values.items())}"
    return {**changed(space.base, values), "_name_or_path": name}


def _axis(name: str, given: Choices, config: PreTrainedConfig, base: Fields) -> Axis:
    if name in _CHOOSES_CODE:
        raise ScenarioError(f"--set {name}: it chooses which code runs; name another model instead")
    if not _has(name, config, base):
        raise ScenarioError(f"--set {_unknown(name, config, base)}")
    if isinstance(given, str):
        now = value_of(name, config, base)
        choices = tuple(itertools.chain.from_iterable(_choices(item, now) for item in _items(given, name)))
    elif isinstance(given, Iterable):
        choices = tuple(given)
    else:
        choices = (given,)
    if not choices:
        raise ScenarioError(f"--set {name} has no values")
    shown = [each.text if isinstance(each, Expression) else repr(each) for each in choices]
    if twice := next((each for each in shown if shown.count(each) > 1), None):
        raise ScenarioError(f"--set {name}: {twice} comes twice")
    return Axis(name, choices)


def _items(text: str, name: str) -> list[str]:
    """The parts of a list, whose commas are those outside of parentheses."""
    items, depth, start = [], 0, 0
    for place, letter in enumerate(text + ","):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth <= 0:
            items.append(text[start:place].strip())
            start = place + 1
    if not all(items) or depth > 0:
        raise ScenarioError(f"--set {name}={text}: {'an empty item' if depth <= 0 else 'a parenthesis is not closed'}")
    return items


def _choices(item: str, now: Value) -> Iterable[Value | Expression]:
    """The values of one part of a list, for a field that is ``now`` in the config."""
    if _SIZES.fullmatch(item):
        return read_sizes(item, least=0)
    if isinstance(now, str):
        return (item.strip("'\""),)
    found = expression(item)
    return (found,) if found.names else (found.value({}),)


def _has(name: str, config: PreTrainedConfig, base: Fields) -> bool:
    try:
        value_of(name, config, base)
    except LookupError:
        return False
    return True


def value_of(name: str, config: PreTrainedConfig, base: Fields) -> Value:
    """The value of a field, as the config has it or as transformers fills it in. Raises LookupError without one."""
    place: Any = config
    raw: Any = base
    for part in name.split("."):
        raw = raw.get(part) if isinstance(raw, Mapping) else None
        if isinstance(place, Mapping) and part in place:
            place = place[part]
        elif isinstance(place, PreTrainedConfig) and part in {*vars(place), *place.attribute_map}:
            place = getattr(place, part)
        elif raw is not None:
            place = raw
        else:
            raise LookupError(name)
    return place


def _unknown(name: str, config: PreTrainedConfig, base: Fields) -> str:
    parts = {key: value for key, value in vars(config).items() if isinstance(value, PreTrainedConfig)}
    known = [*vars(config), *base, *(f"{part}.{field}" for part, inner in parts.items() for field in vars(inner))]
    inside = [f"{part}.{name}" for part, inner in parts.items() if name in vars(inner)]
    hint = f"did you mean {' or '.join(inside)}? " if inside else near(name, [n for n in known if n[0] != "_"])
    return f"{name}: {config.model_type} has no such field; {hint or 'its config.json names them'}".strip()
