"""What several quantisers' fields have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fxmeter.models.errors import DeploymentError
from fxmeter.models.names import Fields


def strings(*lists: Any) -> tuple[str, ...]:
    """All items of lists; what is no list has none."""
    return tuple(
        str(item) for given in lists if isinstance(given, Sequence) and not isinstance(given, str) for item in given
    )


def kept_of(fields: Fields) -> tuple[str, ...]:
    """Modules that stay as they are."""
    names = (
        *("modules_to_not_convert", "llm_int8_skip_modules", "skip_modules", "ignore", "ignored_layers", "exclude"),
        *("exclude_modules", "linear_weights_not_to_quantize"),
    )
    return strings(*(fields.get(name) for name in names))


def unpriced(method: str, what: str, known: str) -> DeploymentError:
    """That ``what`` of a method is not priced, and what is."""
    return DeploymentError(
        f"quantization_config: {method} with {what} is not priced; {known} are (or --weights FORMAT)"
    )
