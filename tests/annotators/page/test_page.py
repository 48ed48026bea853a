"""The page in a real browser: every figure in it is what annotate gives, offline, readable by everyone."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest
from transformers import AutoConfig

from fxmeter import FxmeterError, annotate, closed_form, decode, deploy, generation, load_model, prefill
from fxmeter.annotators.page.page import Alternative, Start, page_html
from fxmeter.annotators.stages.model_info import model_info
from fxmeter.annotators.units import quantity
from fxmeter.models.devices import device, device_names
from fxmeter.models.devices.device import Efficiency
from fxmeter.models.figures import shown
from fxmeter.models.stage_cost import FIGURES, PASS_FIGURES
from tests.annotators.page.browser import Browser
from tests.tracer.tiny import QWEN_MOE

_RATES = {"mm_t": {1 << 14: {1: 1e12, 64: 2e13}, 1 << 24: {1: 2e12, 64: 9e13}}, "attention": {1 << 20: {1: 1e12}}}
MEASURED = replace(
    device("l4-24g"),
    name="measured",
    efficiency=Efficiency(
        product_flops_per_s={"bf16": _RATES}, elementwise_bytes_per_s={"bf16": {1 << 10: 4e12, 1 << 24: 2e11}}
    ),
)
DEVICES = [*(device(name) for name in device_names()), MEASURED]
SHOWN = shown(FIGURES, PASS_FIGURES)


def page_file(model, folder, kernels=("transformers",)):
    """The page of a model, and its closed forms by stage, attention and kernels."""
    forms, alternatives = {}, []
    for kind in kernels:
        deployment = deploy(kernels=kind)
        info = model_info(model, None, deployment)
        for stage in ("prefill", "decode"):
            for attention in ("flash", "eager") if kind == "transformers" else ("flash",):
                form = closed_form(model, stage=stage, attention=attention, deployment=deployment)
                forms[stage, attention, kind] = form
                alternatives.append(Alternative(form, info))
    start = Start(stage="decode", attention="flash", batch=8, prefill=512, decode=4096, device="")
    file = folder / "page.html"
    file.write_text(page_html(alternatives, DEVICES, start), encoding="utf-8")
    return file, forms


@pytest.fixture(scope="module")
def small():
    """Experts of which each token takes some: expectations that are rounded, and large powers."""
    return load_model(
        AutoConfig.for_model(**{**QWEN_MOE, "num_hidden_layers": 2, "num_experts": 64, "num_experts_per_tok": 5})
    )


@pytest.fixture(scope="module")
def page(small, tmp_path_factory):
    return page_file(small, tmp_path_factory.mktemp("page"), ("transformers", "serving"))


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    browser.driver.set_script_timeout(30)
    yield browser
    browser.driver.quit()


def settings(forms, count, seed=0):
    """Random stages, kernels of attention, batches, lengths and devices, small and very large ones."""
    draw = random.Random(seed)
    for _ in range(count):
        kind = draw.choice(sorted(forms))
        batch, length = (int(2 ** draw.uniform(0, top)) for top in (20, 22))
        yield kind, batch, length, draw.choice([*DEVICES, *[MEASURED] * (len(DEVICES) // 3)])


def assert_page_shows(browser, form, kind, batch, length, chosen):
    stage, attention, kernels = kind
    browser.choose(stage=stage, attention=attention, kernels=kernels)
    browser.choose(batch=batch, tokens=length, device=chosen.name)
    sizes = {"batch": batch, ("past_len" if stage == "decode" else "query_len"): length}
    tables, time = form.tables(**sizes), form.time(chosen, **sizes)
    figures = browser.table("figures")
    shown_now = set(figures)
    for row in (row for row in SHOWN if row.name in figures):
        value = getattr(tables if row.name in PASS_FIGURES else tables.cost, row.name)
        exact = f"{value:,}" if row.whole else ""
        assert figures.pop(row.name)[1:] == [quantity(value, row.unit), exact], (row.name, sizes)
    assert not {row.name for row in SHOWN if not (row.hidden_at_zero or row.if_other)} - shown_now
    seconds = {"bound_s": time.bound_s, "estimate_s": time.estimate_s, "launch_s": time.launch_s}
    assert {name: cells[1] for name, cells in figures.items()} == {
        name: quantity(float(value), "second") for name, value in seconds.items()
    }
    modules = browser.table("modules")
    assert set(modules) == set(tables.modules)
    for path, module in tables.modules.items():
        cost = module.cost
        resident = quantity(cost.weight_bytes + cost.kv_bytes, "memory")
        timed = quantity(float(form.modules[path].time(chosen, **sizes).estimate_s), "second")
        expected = [
            module.class_name,
            f"{module.times:,}",
            quantity(cost.flops, "flop"),
            quantity(cost.io_bytes, "byte"),
        ]
        assert modules[path][1:] == [*expected, resident, timed], (path, sizes)


def test_a_page_is_small_and_one_that_is_too_large_says_how_much_fits(page, small, monkeypatch):
    """Six sheets: prefill and decode of flash and eager, and of serving kernels. A page without the last two fits."""
    file, forms = page
    size, tags, info = file.stat().st_size, 200, model_info(small, None)
    alternatives = [Alternative(form, info) for form in forms.values()]
    start = Start(stage="decode", attention="flash", batch=8, prefill=512, decode=4096, device="")
    assert size < 2.5 * 10**6
    fewer = len(page_html(alternatives[:4], DEVICES, start).encode())
    monkeypatch.setattr("fxmeter.annotators.page.page.MOST_BYTES", fewer + tags)
    with pytest.raises(FxmeterError, match=r"would take 2\.\d: 4 of its 6 cost sheets fit") as caught:
        page_html(alternatives, DEVICES, start)
    assert "\n" not in str(caught.value)


def test_every_figure_at_random_settings_is_that_of_the_closed_form(page, browser):
    file, forms = page
    browser.open(file)
    for kind, *others in settings(forms, 30):
        assert_page_shows(browser, forms[kind], kind, *others)
    browser.drawn()
    assert browser.errors() == []
    assert all(url.startswith(("file:", "data:", "blob:", "about:")) for url in browser.requests())


def test_figures_are_what_annotate_gives(small, page, browser):
    browser.open(page[0])
    for scenario in (prefill(77, batch=3), decode(1234, batch=5)):
        length = scenario.past_len or scenario.query_len
        browser.choose(stage=scenario.stage)
        browser.choose(batch=scenario.batch, tokens=length, attention="eager")
        cost = annotate(small, scenario, attention="eager").cost
        figures = browser.table("figures")
        assert figures["flops"][2] == f"{cost.flops:,}"
        assert figures["weight_read_bytes"][2] == f"{cost.weight_read_bytes:,}"
        assert figures["peak_activation_bytes"][2] == f"{cost.peak_activation_bytes:,}"


def test_a_generation_is_the_sum_of_its_steps(small, page, browser):
    browser.open(page[0], "stage=decode&attention=flash&device=a100-sxm4-80g")
    browser.choose(batch=3, tokens=50, steps=9)
    stage = annotate(small, generation(50, steps=9, batch=3), attention="flash")
    time, figures = stage.time("a100-sxm4-80g"), browser.table("figures")
    for row in (row for row in SHOWN if row.name in figures and row.whole):
        assert figures[row.name][2] == f"{stage.reported().value(row.name):,}", row.name
    for name in ("bound_s", "estimate_s", "launch_s"):
        assert figures[name][1] == quantity(float(getattr(time, name)), "second")
    for path, cells in browser.table("modules").items():
        cost = stage.modules[path].cost
        told = [(cost.flops, "flop"), (cost.io_bytes, "byte"), (cost.weight_bytes + cost.kv_bytes, "memory")]
        assert cells[3:6] == [quantity(value, unit) for value, unit in told], path
    assert browser.errors() == []


@pytest.mark.slow
def test_pages_of_crops_are_what_the_vision_tower_costs(browser, tmp_path):
    form = closed_form("deepseek-ocr", stage="vision")
    info = model_info(load_model("deepseek-ocr"), None)
    start = Start("vision", "flash", batch=2, prefill=1, decode=1, device="", rows=1, columns=2)
    (tmp_path / "page.html").write_text(page_html([Alternative(form, info)], DEVICES, start), encoding="utf-8")
    browser.open(tmp_path / "page.html")
    for rows, columns, batch in ((1, 2, 2), (0, 0, 5), (3, 2, 1)):
        browser.choose(tokens=rows, columns=columns, batch=batch, device="h100-sxm5-80g")
        figures, cost = browser.table("figures"), form.at(batch=batch, crops=(rows, columns))
        for name in ("matmul_flops", "io_bytes", "peak_activation_bytes", "weight_bytes"):
            assert figures[name][2] == f"{getattr(cost, name):,}", (name, rows)
        seconds = form.time("h100-sxm5-80g", batch=batch, crops=(rows, columns)).estimate_s
        assert figures["estimate_s"][1] == quantity(float(seconds), "second")
    assert "Reading a page of 3×2 crops" in browser.run("return document.getElementById('answer').textContent")
    browser.drawn()
    assert browser.errors() == []


def test_the_largest_batch_that_is_named_is_the_last_that_fits(page, browser):
    file, forms = page
    browser.open(file, "stage=decode&attention=flash&batch=1&decode=4096&device=l4-24g")
    text = browser.run("return document.getElementById('memory-caption').textContent")
    most = int(text.split("up to ")[1].rstrip(".").replace(",", ""))

    def held(batch):
        cost = forms["decode", "flash", "transformers"].at(batch=batch, past_len=4096)
        return cost.weight_bytes + cost.kv_bytes + cost.peak_activation_bytes

    assert held(most) <= device("l4").memory_bytes < held(most + 1)


def test_a_link_restores_what_was_chosen(page, browser):
    browser.open(page[0])
    browser.choose(stage="prefill", attention="eager", device="t4-16g", by="time")
    browser.choose(batch=3, tokens=777)
    shown, link = browser.table("figures"), browser.driver.current_url
    browser.open(page[0], link.split("#")[1])
    assert browser.table("figures") == shown
    browser.open(page[0], "batch=-4&decode=x&stage=none&device=no&nonsense=1")
    assert browser.table("figures")["kv_bytes"]
    assert browser.errors() == []


def test_a_choice_that_the_others_leave_no_sheet_for_changes_them(page, browser):
    browser.open(page[0], "attention=eager&kernels=transformers")
    browser.choose(kernels="serving")
    assert browser.run("return document.getElementById('controls').elements.attention.value") == "flash"


def test_a_slider_moves_its_field(page, browser):
    browser.open(page[0])
    browser.choose(**{"batch-slider": 40})
    assert browser.run("return document.getElementById('batch').value") == str(2**10)


def test_a_module_is_looked_into_by_keyboard(page, browser):
    browser.open(page[0])
    name = next(path for path in browser.table("modules") if path.endswith("self_attn"))
    browser.driver.find_element("css selector", "details summary").send_keys("\n")
    button = browser.driver.find_element("css selector", f"#modules tr[data-module='{name}'] button")
    button.send_keys("\n")
    browser.drawn()
    assert browser.run("return document.getElementById('icicle').data[0].level") == name
    assert browser.run("return document.activeElement.textContent") == name
    assert browser.errors() == []


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_names_and_contrast_are_good_and_nothing_is_wider_than_the_screen(page, browser, width, dark):
    axe = pytest.importorskip("axe_core_python.selenium").Axe()
    browser.open(page[0], "device=h100-sxm5-80g")
    browser.look(width=width, dark=dark)
    browser.run("document.querySelector('details').open = true")
    found = axe.run(browser.driver)["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
    assert browser.run("return document.documentElement.scrollWidth") <= width


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama-3.1-8b", "deepseek-v3", "gemma-3-27b", "qwen3-30b-a3b", "deepseek-ocr"])
def test_every_figure_of_a_preset(name, preset_model, browser, tmp_path):
    file, forms = page_file(preset_model(name), tmp_path)
    assert file.stat().st_size < 6 * 10**6
    browser.open(file)
    for kind, *others in settings(forms, 30, seed=name):
        assert_page_shows(browser, forms[kind], kind, *others)
    browser.drawn()
    assert browser.errors() == []


def test_a_printed_page_is_dark_on_white_and_as_wide_as_paper(page, browser):
    browser.open(page[0], "device=h100-sxm5-80g")
    browser.look(dark=True)
    text = "return getComputedStyle(document.body).color"
    plots = "document.querySelectorAll('.js-plotly-plot .main-svg')"
    widths = f"return [...{plots}].map((one) => one.getBoundingClientRect().width)"
    on_screen = browser.run(text), max(browser.run(widths))
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert (
        sum(map(int, re.findall(r"\d+", browser.run(text)))) < 3 * 64 < sum(map(int, re.findall(r"\d+", on_screen[0])))
    )
    assert set(browser.run(widths)) == {640}
    assert browser.run("return document.getElementById('chosen').textContent").startswith("Stage decode · Attention ")
    browser.run("dispatchEvent(new Event('afterprint'))")
    browser.drawn()
    assert (browser.run(text), max(browser.run(widths))) == on_screen
