"""How to answer for a member of a list that does not run: with what it was given."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from fxmeter.tracer.capture.known import PLAIN

HandBack = Callable[[Tensor], Tensor]
Answer = Callable[[list[Tensor]], Any]


def passthrough(out: Any, inputs: list[Tensor], places: list[tuple[int, Tensor]], hand_back: HandBack) -> Answer | None:
    """How to answer for a member that does not run: each output tensor stands for the input it is like.

    An output that is an input maps to that input; a new one to what ``hand_back`` makes of the first input of the same
    shape, dtype and strides that no other new output took. ``places`` gets the input's index with each output tensor.
    None where an output is like no input.
    """
    try:
        return _place(out, inputs, set(), places, hand_back)
    except LookupError:
        return None


def _place(
    value: Any, inputs: list[Tensor], taken: set[int], places: list[tuple[int, Tensor]], hand_back: HandBack
) -> Answer:
    if isinstance(value, Tensor):
        index = next((i for i, t in enumerate(inputs) if t is value), None)
        if index is None:
            free = (i for i, t in enumerate(inputs) if i not in taken and not isinstance(t, nn.Parameter))
            index = next((i for i in free if _alike(inputs[i], value)), None)
            if index is None:
                raise LookupError
            taken.add(index)
            places.append((index, value))
            return lambda given: hand_back(given[index])
        places.append((index, value))
        return operator.itemgetter(index)
    if value is None or isinstance(value, PLAIN):
        return lambda given: value
    if type(value) in (tuple, list):
        kind, items = type(value), [_place(item, inputs, taken, places, hand_back) for item in value]
        return lambda given: kind(item(given) for item in items)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls, names = type(value), [f.name for f in dataclasses.fields(value)]
        fields = {name: _place(getattr(value, name), inputs, taken, places, hand_back) for name in names}
        return lambda given: cls(**{name: item(given) for name, item in fields.items()})
    raise LookupError


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.stride() == b.stride()
