"""Models that many tests share: built once, and never changed by a test."""

from __future__ import annotations

import functools
import gc
import subprocess
import sys

import pytest
import torch
from torch import nn

from fxmeter.annotators.cli.main import main
from fxmeter.tracer import load_model


def pytest_collection_finish():
    """torch, transformers and the tests stay: the collector need not look through them again, a tenth of all time."""
    gc.collect()
    gc.freeze()


@functools.cache
def _preset_model(name: str) -> nn.Module:
    return load_model(name)


@pytest.fixture(scope="session")
def preset_model():
    """name → the preset's model on meta, in its own dtype."""
    return _preset_model


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command in this process, which has torch loaded: its exit code and what it printed."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["fxmeter", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, exit.value.code, printed.out, printed.err)

    return command


@pytest.fixture(autouse=True)
def _deterministic():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Nothing that a test asks is answered from what was asked before, by it or by the user."""
    monkeypatch.setenv("FXMETER_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


torch.set_num_threads(1)
