"""What a model's own code raises, as one line that says what failed and where."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from fxmeter.models.errors import FxmeterError, TraceError

_OURS = tuple(str(Path(file).parent) + os.sep for file in (torch.__file__, Path(__file__).parent))
"""Where code lies that no model's author wrote: torch's and fxmeter's."""
_OF_CODE = (TypeError, AttributeError, LookupError, NameError, AssertionError, ArithmeticError)
"""What says nothing to whoever has not written the code: that it is the code's."""
_LONGEST = 300
_NO_VALUE = "the value depends on weights, or on inputs that were given without data"
_HINTS = {
    "does not require grad": "a pass is recorded as without gradients: take them inside `with torch.enable_grad():`",
    "item() cannot be called on meta": _NO_VALUE,
    "to numpy": _NO_VALUE,
    "aten::_to_sparse": "sparse tensors have no rules; give the module with plain dense ones",
    "find the fake impl": "the op says no shapes without data: torch.library.register_fake gives it some",
    "no fake impl": "the op says no shapes without data: torch.library.register_fake gives it some",
}
"""What torch says → what to do about it here."""


@contextmanager
def as_trace_errors(module: nn.Module) -> Iterator[None]:
    """Whatever code raises inside the block, as one TraceError with the class, the op, the module and the line.

    The op and the module are notes that the recorder leaves on the exception.
    """
    try:
        yield
    except (FxmeterError, MemoryError):
        raise
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        where = ", ".join([*getattr(error, "__notes__", ()), *_line(error)])
        hint = next((f"; {advice}" for said, advice in _HINTS.items() if said in text), "")
        if hint.endswith(_NO_VALUE):  # what torch says of its own devices helps nobody
            text = f"its code {'makes a numpy array' if 'numpy' in text else 'asks for the value'} of a tensor"
        elif isinstance(error, _OF_CODE):
            text = f"its code raises {type(error).__name__}: {text}"
        where = where and f" ({where})"
        name = type(module).__name__
        cause = None if isinstance(error, StopIteration) else error  # with that cause contextlib would raise it again
        raise TraceError(f"{name} could not be run on shapes alone: {text[:_LONGEST]}{where}{hint}") from cause


def _line(error: Exception) -> list[str]:
    """The innermost line of the model's own code: "modeling.py, line 12"."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_OURS)]
    own = [frame for frame in frames if not frame.filename.startswith("<") and "contextlib" not in frame.filename]
    return [f"{Path(frame.filename).name}, line {frame.lineno}" for frame in own[-1:]]
