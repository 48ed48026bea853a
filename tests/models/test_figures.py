"""The table of figures: what each row promises."""

from __future__ import annotations

import pytest

from fxmeter.models.figures import counted_behind, shown
from fxmeter.models.stage_cost import DERIVED, EXACT, FIELDS, FIGURES, PASS_FIGURES, StageCost

SUFFIXES = {"flop": "flops", "byte": "_bytes", "memory": "_bytes", "TFLOP": "_tflops", "TB": "_tb", "GiB": "_gib"}


@pytest.mark.parametrize("name", [*FIGURES, *PASS_FIGURES])
def test_a_name_ends_in_its_unit(name):
    figure = {**FIGURES, **PASS_FIGURES}[name]
    assert figure.name == name
    assert figure.unit == "ratio" or name.endswith(SUFFIXES[figure.unit])


def test_a_field_is_counted_and_an_exact_figure_is_a_whole_number():
    assert {*FIELDS, *DERIVED} == set(FIGURES)
    assert set(EXACT) == {*FIELDS, "flops", "io_bytes"}
    cost = StageCost(**dict.fromkeys(FIELDS, 2**70 + 1))
    assert [name for name in FIGURES if isinstance(getattr(cost, name), int)] == list(EXACT)


def test_derived_figures_are_made_of_what_the_table_says():
    """A figure changes with exactly those that it is said to be made of."""
    base = StageCost(**dict.fromkeys(FIELDS, 10**9))
    for name in FIELDS:
        grown = StageCost(**{**dict.fromkeys(FIELDS, 10**9), name: 10**12})
        changed = {figure for figure in FIGURES if getattr(grown, figure) != getattr(base, figure)}
        assert changed == {figure for figure in FIGURES if name in counted_behind(FIGURES, [figure])}


def test_people_see_a_whole_above_its_parts_and_no_figure_twice():
    rows = [(figure.name, figure.under) for figure in shown(FIGURES, PASS_FIGURES)]
    assert [name for name, under in rows if under is None] == [
        "flops",
        "io_bytes",
        "network_bytes",
        "fused_io_bytes",
        "floor_io_bytes",
        "arithmetic_intensity",
        "activation_bytes",
        "kv_bytes",
        "weight_bytes",
    ]
    above = ""
    for name, under in rows:
        above = name if under is None else above
        assert under in (None, above)
    units = ("flop", "byte", "memory", "ratio")
    assert sorted(name for name, _ in rows) == sorted(
        name for name, figure in {**FIGURES, **PASS_FIGURES}.items() if figure.unit in units
    )
