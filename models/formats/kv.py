"""Storage formats of the KV cache."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from fxmeter.models.choices import DTYPE_OF
from fxmeter.models.errors import DeploymentError
from fxmeter.models.names import near


@dataclass(frozen=True, slots=True)
class KvFormat:
    """``bits`` a value and ``per_vector`` bytes for each vector of one token and head (scales, zero points)."""

    name: str
    bits: int
    per_vector: int = 0
    adds: str = ""

    def nbytes(self, values: int, vector: int) -> Fraction:
        """Bytes of ``values`` values in vectors of ``vector`` each."""
        return Fraction(values * self.bits, 8) + Fraction(values * self.per_vector, vector)


_FORMATS = {
    item.name: item
    for item in (
        KvFormat("bfloat16", 16),
        KvFormat("float16", 16),
        KvFormat("float32", 32),
        KvFormat("fp8", 8, adds="one scale for each layer's keys and values (not counted); attention widens them"),
        KvFormat("int8", 8, 2, "a 16-bit scale for each vector; attention widens them"),
        KvFormat("int4", 4, 4, "a 16-bit scale and zero point for each vector; attention widens them"),
    )
}


def kv_format(name: str) -> KvFormat:
    """The format of that name; DeploymentError where there is none."""
    wanted = DTYPE_OF.get(name.strip().lower(), name.strip().lower())
    if wanted not in _FORMATS:
        hint = near(wanted, _FORMATS)
        raise DeploymentError(f"no KV format named {name!r}; {hint}there are {', '.join(_FORMATS)}")
    return _FORMATS[wanted]


def kv_format_names() -> tuple[str, ...]:
    """Every name."""
    return tuple(_FORMATS)
