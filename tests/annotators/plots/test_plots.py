"""Plots: every figure drawn, the same every time, readable parts in the right places."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET

import pytest
from transformers import AutoConfig

from fxmeter.annotators.cli.main import main
from fxmeter.annotators.plots.families import families
from fxmeter.annotators.studies.axes import Axes
from fxmeter.annotators.studies.sweep import StageForms, run_sweep
from fxmeter.models.page import page_tokens
from fxmeter.tracer import load_model
from tests.tracer.tiny import LLAMA

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from fxmeter.annotators.plots import sweep as plots
from fxmeter.annotators.plots.axes import memory_axis


@pytest.fixture(scope="module")
def llama():
    return StageForms.of_model(load_model(AutoConfig.for_model(**LLAMA)))


@pytest.fixture(scope="module")
def contexts(llama):
    return run_sweep(llama, Axes(prefill=(1024, 2048, 8192, 65536), steps=(10,)))


@pytest.fixture(scope="module")
def pages(contexts):
    """A sweep over pages, its costs borrowed from prompts: drawing does not look at what was priced."""
    grids = ((1, 1), (1, 2), (3, 3), (12, 12))
    points = Axes(crops=grids).points()
    figures = tuple(
        (*(dataclasses.replace(one, scenario=point.scenario("vision")) for one in found[:2]), *found)
        for point, found in zip(points, contexts.figures, strict=True)
    )
    return dataclasses.replace(contexts, axes=Axes(crops=grids), points=points, figures=figures)


def drawn(sweep):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return plots.draw(sweep)


@pytest.mark.parametrize(
    ("which", "names"),
    [
        ("contexts", ("flops", "io", "intensity", "activations", "peak_activations", "kv", "weights")),
        ("pages", ("flops", "io")),
    ],
)
def test_every_plot_is_an_svg_and_a_png_without_dates(which, names, request, monkeypatch):
    assert set(names) <= set(plots.PLOTS)
    assert which == "pages" or set(names) == set(plots.PLOTS)
    monkeypatch.setattr(plots, "PLOTS", {name: plots.PLOTS[name] for name in names})
    found = drawn(request.getfixturevalue(which))
    assert list(found) == [f"plots/{name}.{kind}" for name in names for kind in ("svg", "png")]
    page = plots.index_page("a model", found)["plots/index.html"].decode()
    assert [f'<img src="{name}.svg">' in page for name in names] == [True] * len(names)
    for name, content in found.items():
        if name.endswith(".svg"):
            ET.fromstring(content)
            assert b"<dc:date>" not in content
        else:
            assert content.startswith(b"\x89PNG")


@pytest.fixture
def only_activations(monkeypatch):
    """One plot of each family instead of seven."""
    monkeypatch.setattr(plots, "PLOTS", {"activations": plots.PLOTS["activations"]})


@pytest.mark.usefixtures("only_activations")
def test_the_same_sweep_gives_the_same_svg(contexts):
    assert drawn(contexts) == drawn(dataclasses.replace(contexts, created="later"))


def test_activations_are_on_one_logarithmic_axis_with_decode_flat(contexts):
    (family,) = families(contexts)
    figure = plots._activations(family, "title")
    (axes,) = figure.axes
    assert axes.get_yscale() == axes.get_xscale() == "log"
    curves = {(line.get_color(), line.get_linestyle() == "-"): list(line.get_ydata()) for line in axes.get_lines()}
    flash = curves[plots.STAGES["decode"], True]
    assert len(set(flash)) == 1
    assert flash[0] < curves[plots.DARKER["decode"], False][0] < curves[plots.STAGES["prefill"], True][0]
    assert curves[plots.STAGES["prefill"], True] == [
        float(found[1].cost.activation_bytes) for found in contexts.figures
    ]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["prefill, flash", "decode, flash", "prefill, eager", "decode, eager"]
    assert axes.get_ylabel() == "activations made in one pass"
    assert axes.get_xlabel() == "context (tokens)"


def test_traffic_is_stacked_up_to_the_total(contexts):
    (family,) = families(contexts)
    figure = plots._traffic(family, "title")
    assert [axes.get_title() for axes in figure.axes] == [
        "prefill, eager", "decode, per token, eager", "prefill, flash", "decode, per token, flash",
    ]  # fmt: skip
    top = max(y for path in figure.axes[2].collections[-1].get_paths() for y in path.vertices[:, 1])
    assert top == float(contexts.figures[-1][1].cost.io_bytes)


def test_decode_is_drawn_per_token(contexts):
    (family,) = families(contexts)
    cost = contexts.figures[0][3].cost
    assert family.curve("decode", "flash", "flops")[0] == cost.flops / 10
    assert family.curve("decode", "flash", "kv_bytes")[0] == cost.kv_bytes


def test_pages_are_drawn_by_image_tokens_with_their_grids_above(pages):
    (family,) = families(pages)
    assert family.xs == tuple(page_tokens(grid) for grid in ((1, 1), (1, 2), (3, 3), (12, 12)))
    figure = plots._activations(family, "title")
    (axes,) = figure.axes
    assert axes.get_xlabel() == "image tokens"
    (above,) = axes.child_axes
    assert [text.get_text() for text in above.get_xticklabels()] == ["1×1", "3×3", "12×12"]
    assert above.get_xlabel() == "crop grid (rows × columns)"


@pytest.mark.usefixtures("only_activations")
def test_every_batch_has_a_family_of_its_own(llama, monkeypatch):
    sweep = run_sweep(llama, Axes(batch=(1, 8), decode=(8, 64, 512)), attentions=["flash"])
    first, second = families(sweep)
    assert (first.fixed, second.fixed) == ((("batch", 1), ("steps", 1)), (("batch", 8), ("steps", 1)))
    assert first.xs == (8, 64, 512)
    names = list(drawn(sweep))
    kinds = [(batch, kind) for batch in (1, 8) for kind in ("svg", "png")]
    assert names == [f"plots/activations-batch{batch}-steps1.{kind}" for batch, kind in kinds]
    monkeypatch.setattr(plots, "MOST_FAMILIES", 3)
    many = run_sweep(llama, Axes(batch=tuple(range(1, 30)), decode=(8, 64)), attentions=["flash"])
    assert plots.left_out(sweep) == 0
    assert plots.left_out(many) == 29 - plots.MOST_FAMILIES
    assert len(drawn(many)) == 2 * plots.MOST_FAMILIES


def test_batches_alone_are_an_axis_and_a_point_alone_is_no_plot(llama):
    (family,) = families(run_sweep(llama, Axes(batch=(1, 2, 64), decode=(8,)), attentions=["flash"]))
    assert (family.along, family.xs) == ("batch", (1, 2, 64))
    assert drawn(run_sweep(llama, Axes(decode=(8,)), attentions=["flash"])) == {}


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([2**20, 2**21], {"1 MiB", "2 MiB"}),
        ([2**10, 2**43], {"32 KiB", "1 MiB", "32 GiB"}),
        ([5 * 2**30, 5 * 2**30], {"4 GiB", "8 GiB"}),
    ],
)
def test_memory_axes_have_round_ticks(values, labels):
    axes = Figure().subplots()
    axes.plot([1, 2], values)
    memory_axis(axes, "memory")
    texts = [text.get_text() for text in axes.get_yticklabels()]
    assert labels <= set(texts)
    assert 2 <= len(texts) <= 8


def test_what_a_model_does_not_have_is_not_drawn(contexts, monkeypatch):
    """A model without a cache has no KV to show on a logarithmic axis."""
    monkeypatch.setattr(plots, "PLOTS", {name: plots.PLOTS[name] for name in ("kv", "weights")})
    figures = tuple(
        tuple(dataclasses.replace(f, cost=dataclasses.replace(f.cost, kv_bytes=0)) for f in found)
        for found in contexts.figures
    )
    found = drawn(dataclasses.replace(contexts, figures=figures))
    assert list(found) == ["plots/weights.svg", "plots/weights.png"]


@pytest.mark.usefixtures("only_activations")
def test_the_command_draws_and_says_what_is_missing(monkeypatch, capsys, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(LLAMA))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fxmeter", "sweep", str(config), *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, exit.value.code, printed.out, printed.err)

    done = run("--decode", "8,64", "--attention", "flash", "--out", tmp_path / "out")
    assert done.returncode == 0
    assert "plots/activations.png and 2 more" in done.stdout
    assert len(list((tmp_path / "out/plots").iterdir())) == 3
    monkeypatch.setattr("fxmeter.annotators.cli.commands.sweep.find_spec", lambda _: None)
    done = run("--decode", "8,64", "--out", tmp_path / "none", "--plots")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert 'plots need matplotlib: pip install "fxmeter[plot]", or leave --plots out' in line
    assert not (tmp_path / "none").exists()
