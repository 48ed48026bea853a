"""Arguments of folded calls: an object that is gone is not the one that has its place in memory."""

from __future__ import annotations

from fxmeter.tracer.capture.folding import _Calls


class Argument:
    pass


def test_an_object_in_the_place_of_one_that_is_gone_is_another_one():
    calls = _Calls(trusted=True, not_cached=frozenset())
    argument = Argument()
    place, first = id(argument), calls.identity(argument)
    assert calls.identity(argument) is first
    del argument
    others = [Argument() for _ in range(100)]
    (again,) = [other for other in others if id(other) == place]
    assert calls.identity(again) is not first
