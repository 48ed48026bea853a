"""Cost sheets: what is written down gives what annotate gives, without torch, and says what it does not cover."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import fields
from fractions import Fraction

import numpy as np
import pytest
from transformers import AutoConfig

from fxmeter import annotate, closed_form, decode, deploy, generation, load_model, load_sheet, prefill
from fxmeter.annotators.closed.formulas import NoFormula, formulas
from fxmeter.annotators.rules import registry
from fxmeter.annotators.sheets.kept.sealed import sealed, unsealed
from fxmeter.annotators.sheets.numbers import Written, read
from fxmeter.annotators.symbolic import atom, key_of, variable
from fxmeter.models.errors import SheetError
from fxmeter.models.presets import preset_names
from tests.tracer.tiny import DEEPSEEK, QWEN_MOE

CASES = [
    ("decode", "flash", {"deployment": deploy(weights="fp8", kv="fp8", kernels="serving")}),
    ("decode", "eager", {"routing": "worst"}),
    ("prefill", "eager", {}),
    ("prefill", "flash", {"causal": "exact", "logits": "last"}),
]


def saved(model, folder, stage, attention, options):
    file = folder / "sheet.json"
    closed_form(model, stage=stage, attention=attention, **options).save(file)
    return load_sheet(file)


def points(stage, count):
    choose = random.Random(0)
    for _ in range(count):
        batch, length = (int(2 ** choose.uniform(0, top)) for top in (9, 16))
        name = "past_len" if stage == "decode" else "query_len"
        yield {"batch": batch, name: length}, (decode if stage == "decode" else prefill)(length, batch=batch)


def assert_equal_to_annotate(form, model, stage, attention, options, count):
    for sizes, scenario in points(stage, count):
        priced = annotate(model, scenario, attention=attention, **options)
        tables = form.tables(**sizes)
        for each in fields(tables):
            assert getattr(tables, each.name) == getattr(priced, each.name), each.name
        assert form.at(**sizes) == priced.cost
        timed = priced.time("h100")
        assert float(form.time("h100", **sizes).bound_s) == pytest.approx(timed.bound_s, rel=1e-12)
        for path, part in timed.modules.items():
            found = form.modules[path].time("h100", **sizes).estimate_s
            assert float(found) == pytest.approx(part.estimate_s, rel=1e-12)


@pytest.fixture(scope="module")
def model():
    return load_model(AutoConfig.for_model(**{**DEEPSEEK, "num_hidden_layers": 2}))


@pytest.fixture(scope="module")
def live(model):
    """The form of decode with flash, asked for a pass of three tokens too."""
    form = closed_form(model)
    form.at(batch=2, query_len=3, past_len=9)
    return form


@pytest.fixture(scope="module")
def sheet(live, tmp_path_factory):
    """Its cost sheet."""
    file = tmp_path_factory.mktemp("sheets") / "decode.json"
    live.save(file)
    return file


def test_a_sheet_of_decode_gives_what_annotate_gives(model, sheet):
    assert_equal_to_annotate(load_sheet(sheet), model, "decode", "flash", {}, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "attention", "options"), CASES)
def test_a_sheet_gives_what_annotate_gives(model, tmp_path, stage, attention, options):
    form = saved(model, tmp_path, stage, attention, options)
    assert_equal_to_annotate(form, model, stage, attention, options, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "attention", "options"), [("decode", "flash", {}), *CASES])
@pytest.mark.parametrize("name", preset_names())
def test_sheets_of_presets_give_what_annotate_gives(preset_model, tmp_path, name, stage, attention, options):
    try:
        form = saved(preset_model(name), tmp_path, stage, attention, options)
    except NoFormula as error:
        pytest.skip(str(error))
    assert_equal_to_annotate(form, preset_model(name), stage, attention, options, 50)


def test_a_sheet_has_generations_formulas_and_the_model(model, live, sheet):
    form = load_sheet(sheet)
    assert form.generation(past_len=5, steps=9) == annotate(model, generation(5, steps=9)).cost
    assert form.modules["model.layers.1.mlp"].at(past_len=9) == live.modules["model.layers.1.mlp"].at(past_len=9)
    assert formulas(form.sheet, model="m").fields == formulas(live.sheet, model="m").fields
    assert form.sheet.info == live.sheet.info
    assert form.sheet.subject == live.sheet.subject


@pytest.mark.slow
def test_ops_without_a_rule_are_in_a_sheet(tmp_path, monkeypatch):
    model = load_model(AutoConfig.for_model(**QWEN_MOE))
    silu = next(op for op in registry._RULES if str(op) == "aten.silu.default")
    monkeypatch.delitem(registry._RULES, silu)
    tables = saved(model, tmp_path, "prefill", "flash", {}).tables(query_len=7, batch=3)
    assert tables.uncosted == annotate(model, prefill(7, batch=3)).uncosted
    assert tables.uncosted[0].op == "aten.silu.default"


def test_what_a_sheet_does_not_cover_is_one_line(sheet):
    form = load_sheet(sheet)
    with pytest.raises(SheetError, match=r"does not cover B = 1, S_q = 3, C = 0"):
        form.at(batch=1, query_len=3, past_len=0)
    with pytest.raises(SheetError, match="does not cover"):
        form.evaluate(batch=1, query_len=[1, 3], past_len=0)
    with pytest.raises(SheetError, match="does not cover"):
        form.time("h100", batch=1, query_len=3, past_len=0)


def test_what_was_asked_beside_the_usual_is_covered(live, sheet):
    given = {"batch": 2, "query_len": 3, "past_len": 9}
    assert load_sheet(sheet).at(**given) == live.at(**given)


def test_a_file_that_is_no_sheet_is_one_line(sheet, tmp_path):
    file, data = tmp_path / "sheet.json", unsealed(sheet.read_bytes())
    broken = {
        "schema_version": 99,
        "fields": data["fields"][1:],
        "values": [*data["values"][:-1], {"op": "import", "of": []}],
        "pieces": [{}],
    }
    for name, value in broken.items():
        file.write_bytes(sealed({**data, name: value}))
        with pytest.raises(SheetError, match="no cost sheet that this fxmeter reads"):
            load_sheet(file)
    file.write_bytes(json.dumps(data).encode())
    with pytest.raises(SheetError, match="damaged"):
        load_sheet(file)


def test_a_sheet_is_read_without_torch(sheet):
    code = f"""
import sys
from fxmeter import load_sheet
form = load_sheet({str(sheet)!r})
form.at(past_len=4); form.tables(past_len=4); form.time("h100", past_len=[4, 5])
form.evaluate(past_len=[1, 2]); form.generation(past_len=3, steps=5)
print(sorted({{"torch", "transformers", "sympy", "networkx"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_numbers_survive():
    b, c = variable(0), variable(2)
    floor = (b * c + 3) // 2
    rounded = round(2.5 * (1 - 0.75**b) * 2**70)
    half = (b * b + b) // 2
    values = [0, 1, 1.0, 2**80, -3, b, floor, rounded * c + atom("max", b, 5 * c, rounded) ** 2, half, 0.1]
    table = Written()
    places = [table.place(value) for value in values]
    again = read(json.loads(json.dumps(table.table)))
    for value, place in zip(values, places, strict=True):
        assert type(again[place]) is type(value)
        assert key_of(again[place]) == key_of(value)
    assert Fraction(1, 2) in half.terms.values()


@pytest.mark.slow
def test_deepseek_v3_fits_a_mebibyte_and_is_quick(preset_model, tmp_path):
    file = tmp_path / "sheet.json"
    closed_form(preset_model("deepseek-v3")).save(file)
    assert file.stat().st_size <= 2**20
    started = time.process_time()
    form = load_sheet(file)
    form.at(past_len=4096)
    assert time.process_time() - started <= 0.05
    sizes = np.random.default_rng(0)
    batch, past_len = sizes.integers(1, 513, 10**6), sizes.integers(1, 131_073, 10**6)
    started = time.process_time()
    form.evaluate(batch=batch, past_len=past_len)
    assert 10**6 / (time.process_time() - started) >= 10**6  # half of what a core does that nobody else uses
