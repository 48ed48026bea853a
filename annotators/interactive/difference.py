"""A difference that shows itself. Without torch, as saved reports are compared."""

from __future__ import annotations

from dataclasses import fields
from functools import wraps

from fxmeter.annotators.differences import difference
from fxmeter.annotators.interactive.shown import as_text
from fxmeter.annotators.views.difference import difference_view


class ShownDifference(difference.Difference):
    """A :class:`fxmeter.annotators.differences.difference.Difference` that shows itself as ``fxmeter diff`` does."""

    __slots__ = ()

    def __repr__(self) -> str:
        return as_text(difference_view(self, depth=2, ops=5))


@wraps(difference.diff)
def diff(before: difference.Source, after: difference.Source) -> ShownDifference:
    found = difference.diff(before, after)
    return ShownDifference(**{each.name: getattr(found, each.name) for each in fields(found)})
