"""An op without a rule is a result: named, counted, never a silent zero."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from fxmeter.annotators import annotate_module

torch.library.define("fxmeter_test::mystery", "(Tensor x) -> Tensor")
torch.library.impl("fxmeter_test::mystery", "CompositeExplicitAutograd")(lambda x: x.clone())


class Inner(nn.Module):
    def forward(self, x):
        return torch.ops.fxmeter_test.mystery(x)


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Inner(), Inner(), Inner()])

    def forward(self, x):
        x = x + 1
        for layer in self.layers:
            x = layer(x)
        return x


def test_it_is_listed_with_module_shapes_and_count():
    stage = annotate_module(Outer(), torch.empty(3, 4), fold=True)
    assert [(u.op, u.count, u.module, u.shapes) for u in stage.uncosted] == [
        ("fxmeter_test.mystery.default", 3, "layers.0", "float32[3, 4]")
    ]
    assert stage.cost.vector_flops == 3 * 4
    assert stage.cost.activation_write_bytes == (3 + 1) * 3 * 4 * 4


PROGRAM = """
import contextlib, io, json, sys, torch
torch.library.define("fxmeter_test::mystery", "(Tensor x) -> Tensor")
torch.library.impl("fxmeter_test::mystery", "CompositeExplicitAutograd")(lambda x: x.clone())
from transformers.models.llama import modeling_llama
plain = modeling_llama.LlamaMLP.forward
modeling_llama.LlamaMLP.forward = lambda self, x: torch.ops.fxmeter_test.mystery(plain(self, x))
from fxmeter.annotators.cli.main import main
usual, found = ["fxmeter", "report", "llama-2-7b", "--decode", "16", "--attention", "flash", "--no-cache"], []
for flags in json.loads(sys.argv[1]):
    sys.argv = usual + flags
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main()
        except SystemExit as done:
            found.append((done.code or 0, out.getvalue(), err.getvalue()))
print(json.dumps(found))
"""


MODULES = [f"model.layers.{number}.mlp" for number in range(32)]


@functools.cache
def runs():
    """Exit code, stdout and stderr of three reports, in one process whose transformers is somebody else's."""
    flags = json.dumps([[], ["--allow-uncosted"], ["--json"]])
    done = subprocess.run([sys.executable, "-c", PROGRAM, flags], capture_output=True, text=True, timeout=120)
    return json.loads(done.stdout)


@pytest.mark.parametrize(("run", "code"), [(0, 3), (1, 0)], ids=["refused", "allowed"])
def test_the_console_names_it_and_the_exit_code_tells(run, code):
    returned, out, err = runs()[run]
    assert returned == code
    assert "Ops without a rule" in out
    rows = [line.split() for line in out.splitlines() if "fxmeter_test.mystery" in line and "model.layers" in line]
    assert [row[2] for row in rows] == MODULES  # in full: the code of the layers is not transformers' own any more
    assert "Every op was costed" not in out
    assert ("32 op executions have no rule" in err) is (code == 3)
    assert "Traceback" not in err


def test_the_json_names_it():
    returned, out, _ = runs()[2]
    assert returned == 3
    assert json.loads(out)["stages"][0]["uncosted"] == [
        {"op": "fxmeter_test.mystery.default", "count": 1, "module": module, "shapes": "float16[1, 1, 4096]"}
        for module in MODULES
    ]
