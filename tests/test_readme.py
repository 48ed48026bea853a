"""The README tells the truth: its output is real, its code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fxmeter.annotators.cli.main import main

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_first_output_is_what_the_command_prints(monkeypatch, capsys):
    shown = re.search(r"\$ make report\n(.*?)\n…\n```", README, re.DOTALL).group(1).splitlines()
    monkeypatch.setattr("sys.argv", ["fxmeter", "report", "deepseek-ocr"])
    with pytest.raises(SystemExit):
        main()
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    versions = next(i for i, line in enumerate(shown) if line.startswith("fxmeter 0"))
    assert shown[:versions] == printed[:versions]
    assert shown[versions + 1 :] == printed[versions + 1 : len(shown)]


def test_the_python_lines_run(capsys):
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    assert len([line for line in code.splitlines() if line]) <= 6
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.split()[2] == "58"


def test_relative_links_lead_somewhere():
    for target in re.findall(r"\]\(([^):#]+)\)", README):
        assert (Path(__file__).parent.parent / target).exists(), target
