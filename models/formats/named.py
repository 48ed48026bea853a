"""Storage formats by the name that a person gives."""

from __future__ import annotations

from fxmeter.models.choices import DTYPE_OF
from fxmeter.models.formats.config import WeightFormats
from fxmeter.models.formats.gguf import gguf_file, gguf_names
from fxmeter.models.formats.weights import weight_format

PLAIN = ("bfloat16", "float16")
"""Names that mean: as the code has it, nothing quantised."""


def weight_formats(name: str) -> WeightFormats:
    """Every matrix that quantisers convert in the format of that name, or those of a GGUF file; none for "bfloat16" and
    "float16". DeploymentError with the nearest names where there is none."""
    wanted = name.strip().lower()
    wanted = DTYPE_OF.get(wanted, wanted)
    if wanted in PLAIN:
        return WeightFormats(wanted, ())
    return gguf_file(wanted) or WeightFormats(name, (("Linear", weight_format(wanted, gguf_names())),))
