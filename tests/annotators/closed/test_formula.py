"""Formulas for people and for programs: recognisable, and equal to the closed form wherever they are evaluated."""

from __future__ import annotations

import builtins
import json
import random
import re

import pytest
import sympy
from transformers import AutoConfig

from fxmeter.annotators import closed_form
from fxmeter.annotators.closed.arrange import Call, Number, Operation, Symbol, Writing
from fxmeter.annotators.closed.cases import Box, cases_of, merged, sides
from fxmeter.annotators.closed.form import ModuleForm
from fxmeter.annotators.closed.formulas import NoFormula, formulas
from fxmeter.annotators.closed.languages import LATEX, PYTHON, SCREEN, abbreviated
from fxmeter.annotators.closed.mesh import explore
from fxmeter.annotators.documents.formula import to_json, to_latex, to_python
from fxmeter.annotators.symbolic import Guard, NotPolynomial, variable
from fxmeter.models.stage_cost import EXACT, FIELDS
from fxmeter.tracer import load_model
from fxmeter.tracer.load.vision import build_vision
from tests.tracer.tiny import LLAMA, QWEN_MOE

WINDOWED = {
    "model_type": "mistral",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "sliding_window": 8,
}
EVERYWHERE, ONE = ((1, None),), ((1, 1),)


def tiny(fields, stage, attention, **options):
    model = load_model(AutoConfig.for_model(**fields))
    return formulas(closed_form(model, stage=stage, attention=attention, **options).sheet, model=fields["model_type"])


@pytest.fixture(scope="module")
def ocr(preset_model):
    """DeepSeek-OCR's decode and prefill with flash."""
    return {
        stage: formulas(closed_form(preset_model("deepseek-ocr"), stage=stage).sheet, model="deepseek-ocr")
        for stage in ("decode", "prefill")
    }


@pytest.fixture(scope="module")
def windowed():
    """Attention windows and eager attention: many cases."""
    return tiny(WINDOWED, "decode", "eager")


@pytest.fixture(scope="module")
def worst():
    """Expert weights min(E, kT): a comparison of products."""
    return tiny({**QWEN_MOE, "num_experts": 16}, "prefill", "flash", routing="worst")


def test_a_reader_recognises_the_formula(ocr):
    def text(stage, field):
        (case,) = ocr[stage].fields[field]
        return SCREEN.write(case.formula)

    assert text("decode", "matmul_flops") == "B·(61,440·(C + 1) + 1,148,190,720)"
    assert text("prefill", "matmul_flops") == "B·(61,440·S_q² + 1,148,190,720·S_q)"
    assert text("decode", "kv_bytes") == "61,440·B·(C + 1)"
    assert text("prefill", "kv_bytes") == "61,440·B·S_q"
    gate_up, down = f"64·{1280 * 2 * 896 * 2:,}·(1 - (29/32)^B)", f"64·{1280 * 896 * 2:,}·(1 - (29/32)^B)"
    table = f"min(2,560·B, {2560 * 129_280:,})"
    assert text("decode", "weight_read_bytes").startswith(f"11·round({gate_up}) + 11·round({down}) + {table} + ")
    assert text("decode", "peak_activation_bytes") == "max(261,120·B, 15,616·B + 328,200)"


def test_a_window_is_a_case_with_its_condition(windowed):
    inside, beyond = windowed.fields["kv_read_bytes"]
    assert (windowed.when(inside, SCREEN), windowed.when(beyond, SCREEN)) == ("C ≤ 6", None)
    layer = 2 * 2 * 8 * 2  # keys and values, 2 heads of 8, bfloat16
    assert SCREEN.write(inside.formula) == f"{2 * layer}·B·(C + 1)"
    assert SCREEN.write(beyond.formula) == f"{2 * layer * 8:,}·B"


def test_a_comparison_of_products_is_in_its_smallest_form(worst):
    many, few = worst.fields["weight_read_bytes"]
    assert few.otherwise
    assert worst.when(many, SCREEN) == "(B ≥ 8 and S_q = 1) or (S_q ≥ 2 and B·S_q ≥ 8)"


def points(found, count):
    """Sizes small, large and around windows and numbers of experts."""
    choose = random.Random(7).choice
    for _ in range(count):
        batch = choose([1, 2, 3, 8, 511])
        if found.sheet.stage == "vision":
            yield {
                "B": batch,
                **dict(zip("hw", choose([(0, 0), (1, 1), (1, 2), (5, 1), (3, 3), (20, 17)]), strict=True)),
            }
        elif found.sheet.stage == "prefill":
            yield {"B": batch, "S_q": choose([1, 2, 3, 4, 7, 8, 9, 130, 200_000])}
        else:
            yield {"B": batch, "C": choose([0, 1, 2, 6, 7, 8, 100, 199_999])}


def at(found, sizes):
    """The closed form's own figures."""
    names = {"B": "batch", "S_q": "query_len", "C": "past_len"}
    given = {names[name]: size for name, size in sizes.items() if name in names}
    if "h" in sizes:
        given["crops"] = (sizes["h"], sizes["w"])
    cost = ModuleForm(found.sheet, found.module).at(**given)
    return {name: getattr(cost, name) for name in EXACT}


def pasted(found):
    """The function that --python prints, as an interpreter that has nothing else gets it."""
    namespace: dict = {
        "__builtins__": {
            name: getattr(builtins, name) for name in ("dict", "int", "str", "max", "min", "round", "ValueError")
        }
    }
    exec(to_python(found), namespace)
    return next(value for name, value in namespace.items() if name != "__builtins__")


@pytest.mark.parametrize("which", ["ocr", "windowed", "worst"])
def test_the_pasted_function_equals_the_closed_form(which, request):
    found = request.getfixturevalue(which)
    for one in found.values() if isinstance(found, dict) else [found]:
        function = pasted(one)
        for sizes in points(one, 25):
            assert function(**sizes) == at(one, sizes), sizes


@pytest.mark.parametrize("which", ["windowed", "worst"])
def test_sympys_strings_equal_the_closed_form(which, request):
    found = request.getfixturevalue(which)
    data = to_json(found)
    assert json.loads(json.dumps(data)) == data
    assert set(data["fields"]) == {*FIELDS, "flops", "io_bytes"}
    read = {name: sympy.sympify(field["sympy"]) for name, field in data["fields"].items()}
    for sizes in points(found, 6):
        expected = at(found, sizes)
        assert {name: int(value.subs(sizes)) for name, value in read.items()} == expected
        for name, field in data["fields"].items():
            case = next(c for c in field["cases"] if bool(sympy.sympify(c["condition"]).subs(sizes)))
            assert int(sympy.sympify(case["sympy"]).subs(sizes)) == expected[name]


def test_sizes_out_of_range_are_refused_by_the_pasted_function(ocr):
    with pytest.raises(ValueError, match="out of range"):
        pasted(ocr["decode"])(B=0, C=5)


@pytest.mark.parametrize("path", ["model.layers.1.self_attn", "model.layers.7.mlp.experts"])
def test_a_module_has_its_own_formulas(ocr, path):
    found = formulas(ocr["decode"].sheet, model="deepseek-ocr", module=path)
    assert found.times == 11
    function = pasted(found)
    for sizes in points(found, 5):
        assert function(**sizes) == at(found, sizes)
    (case,) = found.fields["matmul_flops"]
    projections, experts = 2 * 4 * 1280 * 1280, 2 * 6 * 3 * 1280 * 896
    attention = f"B·({2 * 2 * 1280:,}·(C + 1) + {projections:,})"
    assert SCREEN.write(case.formula) == (attention if "attn" in path else f"{experts:,}·B")


def test_latex_is_balanced_and_whole(windowed, ocr):
    for found in (windowed, ocr["decode"]):
        text = to_latex(found)
        assert text.count("{") == text.count("}")
        assert len(re.findall(r"\\left\b", text)) == len(re.findall(r"\\right\b", text))
        assert text.count("\\begin{") == text.count("\\end{")
        assert text.count("&=") == len(EXACT)
    assert "61{,}440 \\cdot \\left(C + 1\\right)" in to_latex(ocr["decode"])
    assert LATEX.write(Symbol("S_q")) == "S_{q}"


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["eager", "flash"])
def test_the_vision_stage_has_formulas_too(attention):
    found = formulas(closed_form(build_vision(), stage="vision", attention=attention).sheet, model="tower")
    function = pasted(found)
    for sizes in points(found, 30):
        assert function(**sizes) == at(found, sizes), sizes
    assert SCREEN.write(found.fields["matmul_flops"][-1].formula).startswith("B·(388,149,837,824·h·w + ")


def test_boxes_that_differ_in_one_size_are_merged():
    low, high = Box((EVERYWHERE, ((1, 4),), ONE)), Box((EVERYWHERE, ((5, None),), ONE))
    assert merged([low, high]) == (Box((EVERYWHERE, EVERYWHERE, ONE)),)
    apart = Box((EVERYWHERE, ((6, None),), ONE))
    assert merged([low, apart]) == (Box((EVERYWHERE, ((1, 4), (6, None)), ONE)),)
    product = variable(0) * variable(1)
    yes, no = Guard(8 * product - 128, ">="), Guard(127 - 8 * product, ">=")
    boxes = [Box(low.axes, frozenset([guard])) for guard in (yes, no)]
    assert merged(boxes) == (low,)


def test_pages_without_crops_are_told_from_pages_with_them():
    """A page has rows and columns, or neither: what one of them says need not be said of the other."""
    none, some = ((0, 0),), ((1, None),)
    whole = (Box((EVERYWHERE, some, some)), Box((EVERYWHERE, none, none)))
    sizes = Writing(("B", "h", "w"), kv=False)

    def text(*boxes):
        return SCREEN.condition(boxes, whole, sizes)

    assert text(Box((ONE, some, some))) == "B = 1 and h ≥ 1"
    assert text(Box((ONE, none, none))) == "B = 1 and h = 0 and w = 0"
    assert text(Box((ONE, none, none)), Box((ONE, some, some))) == "B = 1"
    assert text(Box((EVERYWHERE, some, ((2, None),)))) == "w ≥ 2"
    assert text(Box((EVERYWHERE, ((2, 5),), some))) == "2 ≤ h ≤ 5"


def test_pasted_code_keeps_the_order_of_floats_and_people_get_the_simple_one():
    """A float product rounds differently in another order, so the code to paste keeps it."""
    inner = Operation("*", (Number(64), Operation("-", (Number(1), Number(0.90625)))))
    nested = Operation("*", (inner, Number(4587520)))
    assert PYTHON.write(nested) == "(64*(1 - 0.90625))*4587520"
    assert SCREEN.write(nested) == "64·4,587,520·(1 - (29/32))"
    assert PYTHON.write(Operation("+", (Number(1), Operation("+", (Number(2), Number(3)))))) == "1 + (2 + 3)"


def test_a_comparison_is_divided_by_what_its_terms_share():
    product = variable(0) * variable(1)
    assert sides(Guard(8 * product - 129, ">=")) == (product, 17)
    assert sides(Guard(127 - 8 * product, ">=")) == (15, product)


def test_points_without_a_case_are_not_guessed(monkeypatch, windowed):
    """Only pieces of long contexts: the last case keeps its condition, and the pasted function raises elsewhere."""
    pieces = [p for p in explore(windowed.sheet) if p.region.lower[2] > 6]
    kept = cases_of("decode", pieces, [p.modules[""].cost.kv_bytes for p in pieces])
    assert not kept.complete
    monkeypatch.setattr("fxmeter.annotators.closed.formulas.explore", lambda _: tuple(pieces))
    found = formulas(windowed.sheet, model="windowed")
    function = pasted(found)
    assert function(B=2, C=100) == at(found, {"B": 2, "C": 100})
    with pytest.raises(ValueError, match="no formula of matmul_flops is known here"):
        function(B=2, C=3)


def test_a_long_maximum_is_shortened_and_says_so():
    long = Call("max", tuple(map(Symbol, "abcdef")))
    assert abbreviated(long, 4) == (Call("max", long.parts[:4]), 2)
    assert abbreviated(long, 6) == (long, 0)


# Command


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "config.json"
    path.write_text(json.dumps(LLAMA))
    return path


def test_the_command_prints_every_field(run, config):
    done = run("formula", config)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 100
    projections = 2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48)
    assert f"B·({3 * 2 * 2 * 32}·(C + 1) + {3 * projections + 2 * 32 * 40:,})" in done.stdout
    for name in ("matmul FLOPs", "weights read", "peak alive", "KV cache after", "FLOPs", "I/O if fused"):
        assert name in done.stdout


@pytest.mark.parametrize(
    ("option", "start"),
    [
        ("--json", '{\n  "schema_version": 2'),
        ("--python", "def config_prefill_flash(B: int, S_q: int)"),
        ("--latex", "% "),
    ],
)
def test_the_command_prints_code(run, config, option, start):
    assert run("formula", config, "--stage", "prefill", option).stdout.startswith(start)


def test_an_unknown_module_is_one_line(run, config):
    done = run("formula", config, "--module", "model.layers.0.self_atn")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"fxmeter: {config} has no module 'model.layers.0.self_atn'; did you mean model.layers.0.self_attn?"
    ]


def test_a_model_without_a_formula_is_one_line(run, config, monkeypatch):
    def none(pieces):
        raise NotPolynomial("its ops change with the length again and again")

    monkeypatch.setattr("fxmeter.annotators.closed.formulas.explore", none)
    with pytest.raises(NoFormula):
        tiny(LLAMA, "decode", "flash")
    done = run("formula", config)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"fxmeter: {config}, decode, flash has no formula: its ops change with the length again and again"
    ]


def test_every_option_has_help_and_an_example():
    from fxmeter.annotators.cli.commands.formula import formula

    for option in formula.params:
        if option.param_type_name == "option":
            assert "e.g. " in option.help, option.name
