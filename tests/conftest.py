"""Models that many tests share: built once, and never changed by a test."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from tracer import load_model


@functools.cache
def _preset_model(name: str) -> nn.Module:
    return load_model(name)


@pytest.fixture(scope="session")
def preset_model():
    """name → the preset's model on meta, in its own dtype."""
    return _preset_model


@pytest.fixture(autouse=True)
def _deterministic():
    torch.manual_seed(0)


torch.set_num_threads(1)
