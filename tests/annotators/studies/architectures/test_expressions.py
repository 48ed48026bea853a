"""Expressions compute what Python computes, and reach nothing else."""

from __future__ import annotations

import pickle

import pytest

from fxmeter.annotators.studies.architectures.expressions import expression, read_assignment
from fxmeter.models import ScenarioError

KNOWN = {"hidden_size": 4096, "heads": 32, "text.layers": 5, "act": "silu", "nothing": None}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8*hidden_size//3", 8 * 4096 // 3),
        ("hidden_size / heads", 4096 / 32),
        ("-heads % 7 + 2**5", -32 % 7 + 32),
        ("min(heads, 8) + max(1, 2, 3)", 8 + 3),
        ("round(heads / 3) + ceil(0.5) + floor(1.5) + abs(-2)", 11 + 1 + 1 + 2),
        ("text.layers + 1", 5 + 1),
        ("16 <= heads < 64 and not heads == 33", True),
        ("heads if hidden_size > 8e9 else 7", 7),
        ('act == "silu" or nothing', True),
        ("nothing == null", True),
    ],
)
def test_an_expression_is_what_python_makes_of_it(text, value):
    found = pickle.loads(pickle.dumps(expression(text)))
    assert found.value(KNOWN) == value


def test_an_expression_knows_what_it_reads():
    assert expression("max(text.layers, heads) + true").names == {"text.layers", "heads"}


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "(1).bit_length()",
        "[x for x in heads]",
        "lambda: 1",
        "heads[0]",
        "open('/etc/passwd')",
        "f'{heads}'",
        "print(heads)",
        "min(*heads)",
        "max(key=heads)",
        "heads := 3",
        "(heads := 3)",
        "heads @ heads",
        "1 << 99",
        "heads is nothing",
        "heads in act",
        "1j",
        "b'x'",
        "heads +",
        "",
        "1 2",
        "-" * 500 + "1",
    ],
)
def test_anything_else_is_refused_in_one_line(text):
    with pytest.raises(ScenarioError) as refusal:
        expression(text)
    assert "\n" not in str(refusal.value)


def test_a_dot_leads_to_a_field_of_that_name_and_to_no_attribute():
    assert expression("heads.__class__").names == {"heads.__class__"}
    with pytest.raises(KeyError):
        expression("heads.__class__").value(KNOWN)


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9",
        "2**(2**9)",
        "heads // 0",
        "heads % 0",
        "heads / 0",
        "act * 3",
        "nothing + 1",
        "(-8)**0.5",
        "2e308*2-2e308*2 + round(1e400)",
    ],
)
def test_what_has_no_value_says_so_at_once(text):
    with pytest.raises(ScenarioError, match="cannot be computed"):
        expression(text).value(KNOWN)


def test_an_assignment_has_a_field_and_a_value():
    assert read_assignment(" text_config.hidden_size = 1:2 ") == ("text_config.hidden_size", "1:2")
    for text in ("hidden_size", "=3", "a b=3", "3=4", "a..b=1"):
        with pytest.raises(ScenarioError, match="FIELD=VALUE"):
            read_assignment(text)
