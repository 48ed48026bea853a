"""Regions of sizes that are known: breakpoints are found to the token, and what is no polynomial is refused."""

from __future__ import annotations

import pytest

from fxmeter.annotators.shapes.cells import Cell
from fxmeter.annotators.shapes.regions import Regions, config_lengths
from fxmeter.annotators.shapes.samples import Samples
from fxmeter.annotators.symbolic import NotPolynomial, value_at

TOP = (2**20 + 7, 2**20 + 7)


class Sizes(Samples):
    """Recordings whose structure and sizes are functions of the point."""

    def __init__(self, sizes, structure=lambda point: ()):
        super().__init__(None)
        self._sizes, self._structure = sizes, structure

    def at(self, point, *, keep=False):
        if point not in self._taken:
            self._taken[point] = self._structure(point), self._sizes(*point)
        return self._taken[point]

    def with_sizes(self, fit):
        return fit.sizes


def regions_of(sizes, structure=lambda point: (), hints=()):
    regions = Regions(None, least=(1, 0), top=TOP, hints=hints)
    regions.samples = Sizes(sizes, structure)
    return regions


PLANE = [(b, x, y) for b in (1, 2, 7) for x in (1, 2, 3, 30, 129, 5000) for y in (0, 1, 2, 29, 127, 128, 7000)]


@pytest.mark.parametrize(
    "sizes",
    [
        lambda b, x, y: [b * x * (x + y), 64, b * 3],
        lambda b, x, y: [min(y, 127) + x, b * x],
        lambda b, x, y: [min(x, 50) * b, min(y, 200), x + y],
        lambda b, x, y: [min(x + y, 128) * b, 5],
        lambda b, x, y: [x * y * (b + 1), (x + y) ** 2],
        lambda b, x, y: [b * x if b > 1 else 7],
    ],
    ids=["no breakpoint", "in y", "in x and in y", "in the sum", "linear in the batch", "a batch of 1"],
)
def test_a_region_has_the_sizes_of_all_its_points(sizes):
    regions = regions_of(sizes, hints=[128])
    for point in PLANE:
        found = regions.found[regions.find(point)]
        assert [value_at(size, point) for size in found] == sizes(*point), point


def test_a_breakpoint_is_found_to_the_token_without_a_hint():
    regions = regions_of(lambda b, x, y: [b * min(y, 4321)])
    regions.find((2, 1, 5000))
    assert [region.upper[2] for region in regions.found] == [4321, None]


def test_other_ops_are_another_region():
    regions = regions_of(lambda b, x, y: [b * x], structure=lambda point: ("long",) if point[1] > 70 else ("short",))
    assert regions.find((2, 70, 0)) is not regions.find((2, 71, 0))


def test_a_change_that_is_undone_later_is_seen_by_what_was_asked_for():
    regions = regions_of(lambda b, x, y: [b * y + (4000 < y < 4100)])
    assert value_at(regions.found[regions.find((2, 1, 4050))][0], (2, 1, 4050)) == 2 * 4050 + 1


@pytest.mark.parametrize(
    "sizes",
    [
        lambda b, x, y: [b * (x // 4)],
        lambda b, x, y: [b * x**3],
        lambda b, x, y: [b * b * x],
    ],
    ids=["a floor", "a cube", "a square of the batch"],
)
def test_what_is_no_polynomial_of_its_degree_is_refused(sizes):
    with pytest.raises(NotPolynomial):
        regions_of(sizes).find((2, 900, 0))


def test_a_few_lengths_are_no_region_where_the_batch_is_not_linear():
    with pytest.raises(NotPolynomial, match="batch"):
        regions_of(lambda b, x, y: [b * b * x]).find((2, 3, 0))


def test_ops_that_grow_with_the_length_are_refused_early():
    regions = regions_of(lambda b, x, y: [b], structure=lambda point: ("op",) * point[1])
    with pytest.raises(NotPolynomial, match="again and again"):
        regions.find((2, 900, 0))
    assert len(regions.samples) < 60


def test_cells_lie_between_breakpoints_in_both_lengths_and_their_sum():
    cell = Cell.around((5, 4), ({2, 9}, {3}), (1, 0))
    assert (cell.xs, cell.ys) == ((3, 9), (4, None))
    assert cell.sums == (5, 9)  # 2 + 0 and 3 + 1 lie below, 9 + 0 above
    assert cell.holds((5, 4))
    assert not cell.holds((6, 4))
    assert all(map(cell.holds, cell.far_places(TOP)))
    assert (3, 6) in cell.far_places(TOP)


def test_hints_are_all_whole_numbers_of_a_config():
    config = {"window": 128, "rope": {"length": 4096.0, "theta": 1.5}, "layers": [1, 2, 77]}
    assert config_lengths(config) == {128, 4096, 77}


def test_batches_at_a_length_that_goes_by_no_form_have_one():
    """A floor of the length: the first batch is refused, the second finds what holds for all of them."""
    regions = regions_of(lambda b, x, y: [b * (x // 4) + 1])
    with pytest.raises(NotPolynomial):
        regions.find((2, 900, 0))
    sizes = [regions.found[regions.find((batch, 900, 0))] for batch in (3, 4, 1, 5000)]
    assert [value_at(size[0], (batch, 900, 0)) for size, batch in zip(sizes, (3, 4, 1, 5000), strict=True)] == [
        676, 901, 226, 1_125_001,
    ]  # fmt: skip
    recorded = len(regions.samples)
    regions.find((77, 900, 0))
    assert len(regions.samples) == recorded
    with pytest.raises(NotPolynomial):
        regions.find((2, 901, 0))
