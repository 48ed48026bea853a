"""Private names of torch and transformers: each exists, one that is gone is told, and only one file uses them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from transformers.integrations.hub_kernels import use_kernel_func_from_hub_with_fallback

from fxmeter import FxmeterError
from fxmeter.tracer import private
from fxmeter.tracer.private import COMPILED, NAMES, Name, kernel_of, require
from fxmeter.tracer.run.patches.scan_hooks import UNMARKED

ROOT = Path(__file__).parent.parent.parent
FILES = [file for floor in ("tracer", "annotators") for file in (ROOT / floor).rglob("*.py")]
EVERYBODYS = {"_parameters", "_buffers", "_modules", "_schema", "_replace"}
"""Of nn.Module, whose documentation explains them; of ops; of named tuples."""


@pytest.mark.parametrize("name", [*NAMES, *UNMARKED, COMPILED], ids=str)
def test_every_name_exists_in_the_installed_versions(name):
    require(name)


@pytest.mark.parametrize(
    ("module", "attribute"), [("torch.fx", "Graph._moved"), ("torch._moved", "X"), ("transformers", "Gone()._x")]
)
def test_a_name_that_is_gone_is_told_with_what_it_is_for(module, attribute):
    with pytest.raises(FxmeterError, match=rf"has no {module}\.{attribute.replace('()', '..')}, .* cannot name nodes"):
        require(Name(module, attribute, "name nodes"))


def test_a_mark_for_kernels_carries_the_name_of_the_kernel():
    @use_kernel_func_from_hub_with_fallback("selective_scan_fn", "a_package_that_is_not_there")
    def scan(u):
        return u

    assert kernel_of(scan) == "selective_scan_fn"
    assert kernel_of(lambda u: u) == ""


def _is_private(name):
    return name.startswith("_") and not name.startswith("__")


def private_names(file):
    """Names with one leading underscore: attributes of torch, configs and modules, and imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            base = node.value
            while isinstance(base, ast.Attribute):
                base = base.value
            if (
                isinstance(base, ast.Name)
                and not ast.unparse(node).startswith("torch.ops.")
                and base.id in ("torch", "config", "model", "module", "fx")
            ):
                yield node.attr
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(("torch", "transformers")):
            yield from (part for part in [*node.module.split("."), *(a.name for a in node.names)] if _is_private(part))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_other_file_reaches_for_a_private_name(file):
    if file == Path(private.__file__).resolve():
        assert set(private_names(file))
        return
    assert set(private_names(file)) <= EVERYBODYS
