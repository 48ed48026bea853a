"""What is installed is ``fxmeter`` and nothing else: it shadows nobody's ``models``, and loads torch when it must."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fxmeter

ROOT = Path(__file__).parent.parent
FLOORS = ["annotators", "models", "tracer"]


def python(code: str, folder: Path) -> str:
    """What ``python -c CODE`` prints in ``folder``, which is on the path before the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(run, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def foreign(tmp_path):
    """A project with folders of the same names as ours."""
    for floor in FLOORS:
        (tmp_path / floor).mkdir()
        (tmp_path / floor / "__init__.py").write_text("MINE = True\n")
    return tmp_path


def test_importing_it_loads_neither_torch_nor_transformers(tmp_path):
    code = "import sys, fxmeter; fxmeter.decode(8); fxmeter.prefill; fxmeter.__version__; print(*sys.modules)"
    assert not {"torch", "transformers", "networkx", "rich", "sympy", "numpy"} & set(python(code, tmp_path).split())


def test_python_dash_m_is_the_command(tmp_path):
    code = "import runpy, sys; sys.argv[1:] = ['--version']; runpy.run_module('fxmeter', run_name='__main__')"
    assert python(code, tmp_path) == f"fxmeter, version {fxmeter.__version__}"


def test_every_public_name_of_the_design_is_there():
    from fxmeter import annotate, annotate_module, closed_form, decode, generation, load_model, prefill, vision

    assert {annotate, annotate_module, closed_form, decode, generation, load_model, prefill, vision} <= {
        getattr(fxmeter, name) for name in fxmeter.__all__
    }


def documented() -> list[Callable[..., object]]:
    from fxmeter.annotators.closed.form import ClosedForm
    from fxmeter.tracer import record

    public = [value for name in fxmeter.__all__ if inspect.isfunction(value := getattr(fxmeter, name))]
    return [*public, record, ClosedForm.at, ClosedForm.evaluate, ClosedForm.generation]


def test_public_functions_say_what_they_take_and_return():
    assert len(documented()) >= 11
    for function in documented():
        text = inspect.getdoc(function)
        arguments = text.split("Args:\n")[1].split("\n\nReturns:\n")[0]
        named = re.findall(r"^ {4}\**(\w+(?:, \w+)*): ", arguments, re.MULTILINE)
        taken = [name for name in inspect.signature(function).parameters if name != "self"]
        assert sorted(", ".join(named).split(", ")) == sorted(taken), function


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'annotated'"):
        fxmeter.annotated  # noqa: B018


def test_a_project_s_own_models_folder_stays_its_own(foreign):
    code = """
import models, tracer, annotators
from fxmeter import annotators as ours, decode
import fxmeter.models
assert models.MINE and tracer.MINE and annotators.MINE
print(decode.__module__, ours.__name__, fxmeter.models is models)
"""
    assert python(code, foreign) == "fxmeter.models.scenario fxmeter.annotators False"


def test_a_project_s_own_models_folder_may_come_second(foreign):
    code = "import fxmeter.models, models; print(models.MINE, hasattr(fxmeter.models, 'MINE'))"
    assert python(code, foreign) == "True False"


@pytest.mark.parametrize("floor", FLOORS)
def test_the_package_s_folders_are_those_at_the_top(floor):
    assert (ROOT / "fxmeter" / floor).samefile(ROOT / floor)


@pytest.mark.parametrize(
    "code",
    [
        "import models, fxmeter.models; print(models is fxmeter.models)",
        "import fxmeter.models, models; print(models is fxmeter.models)",
        "from models.scenario import decode; import fxmeter; print(decode is fxmeter.decode)",
        "import annotators.conventions as a; import fxmeter.annotators.conventions as b; print(a is b)",
    ],
)
def test_a_folder_s_name_in_a_checkout_gives_the_same_objects(code):
    assert python(code, ROOT) == "True"
