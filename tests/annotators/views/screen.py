"""What commands show of small models, as renderables: run once, rendered at any width."""

from __future__ import annotations

import io
import json
import re

from rich.console import Console, Group

from fxmeter.annotators.views.console import FirstThatFits, Grid
from tests.annotators.studies.measured.by_hand import FIELDS, TOKENS, llama
from tests.tracer.tiny import DEEPSEEK, GEMMA3, LLAMA

CONFIGS = {"deepseek": DEEPSEEK, "gemma": GEMMA3, "llama": LLAMA, "by_hand": FIELDS}
DEVICE = ("--device", "h100-sxm5-80g")
COMMANDS = {
    "cache": ("cache",),
    "report": ("report", "deepseek/config.json", "--prefill", 16, "--decode", 16, "--steps", 3, *DEVICE, "--at-peak"),
    "report_windows": ("report", "gemma/config.json", "--decode", 64, "--attention", "flash", "--ops", 3),
    "time": ("time", "llama/config.json", "--prefill", "64,128", "--decode", "64,128", "--batch", "1,8", *DEVICE),
    "capacity": ("capacity", "llama/config.json", "--prefill", 64, "--steps", 8, *DEVICE),
    "diff": ("diff", "llama/config.json", "gemma/config.json", "--prefill", 16),
    "compare": ("compare", "by_hand/config.json", "--trace", "trace.json", "--prefill", TOKENS, *DEVICE),
    "models": ("models",),
    "crosscheck": ("crosscheck", "llama-3.1-8b", "--prefill", 16, "--decode", 16, "--attention", "flash"),
    "explain": ("explain",),
    "explain_term": ("explain", "routing"),
    "formula": ("formula", "gemma/config.json", "--stage", "decode"),
    "sweep": ("sweep", "llama/config.json", "--decode", "64,128", "--out", "swept", "--no-plots", "--check"),
    "explore": (
        *(
            "explore",
            "llama/config.json",
            "--set",
            "num_hidden_layers=2,4",
            "--set",
            "hidden_size=32,33",
            "--decode",
            64,
        ),
        *("--pareto", "tpot,parameters", "--out", "explored", "--jobs", 1, *DEVICE),
    ),
    "devices": ("devices",),
    "device": ("devices", "l4"),
    "ops": ("ops", "softmax"),
    "lock": ("lock", "llama/config.json", "--decode", 64),
    "check": ("check",),
}


def views_of(run, monkeypatch, tmp_path):
    """Command → what it puts on the console."""
    for name, fields in CONFIGS.items():
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "config.json").write_text(json.dumps({**fields, "torch_dtype": "bfloat16"}))
    (tmp_path / "trace.json").write_text(json.dumps({"traceEvents": llama().events}))
    found: list = []
    collect = type("Collect", (), {"print": lambda self, view: found.append(view), "is_terminal": False})
    monkeypatch.setattr("fxmeter.annotators.views.console.stdout_console", collect)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FXMETER_CACHE_DIR", "kept")
    views = {}
    for name, arguments in COMMANDS.items():
        if name == "check":
            wider = {**LLAMA, "intermediate_size": 56, "torch_dtype": "bfloat16"}
            (tmp_path / "llama" / "config.json").write_text(json.dumps(wider))
        done = run(*arguments)
        assert done.returncode in (0, 1 if name in ("diff", "check") else 0), (name, done.stderr)
        views[name] = Group(*found)
        found.clear()
    return views


def text_of(view, width):
    """Lines as they are printed, versions of packages left out."""
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(view)
    lines = (line.rstrip() for line in console.file.getvalue().splitlines())
    text = "\n".join(lines) + "\n"
    return re.sub(r"^(?:fxmeter 0(?:.|\n)*?\spython [\d.]+|source sha256 .*)$", "(versions)", text, flags=re.MULTILINE)


def grids_of(view):
    """Every table of a view, of several ways to show the same the first."""
    if isinstance(view, Grid):
        yield view
    elif isinstance(view, FirstThatFits):
        yield from view.ways[0]
    elif isinstance(view, Group):
        for part in view.renderables:
            yield from grids_of(part)
