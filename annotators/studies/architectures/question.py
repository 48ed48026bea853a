"""What is asked of every architecture: which passes, where, counted how; and what its figures are called."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from fxmeter.annotators.conventions import USUAL, Conventions
from fxmeter.annotators.sheets.kept.plain import plain
from fxmeter.annotators.studies.architectures.expressions import Expression
from fxmeter.annotators.units import Kind
from fxmeter.models.choices import Attention
from fxmeter.models.deployment import ONE_DEVICE, Deployment
from fxmeter.models.devices import Device
from fxmeter.models.errors import ScenarioError
from fxmeter.models.names import Document, Fields, near
from fxmeter.models.scenario import Scenario
from fxmeter.models.stage_cost import ALL_FIGURES
from fxmeter.models.version import ANALYTIC_MODEL_VERSION, versions

KEY_BYTES = 16
PASS = {name: row for name, row in ALL_FIGURES.items() if row.whole or row.unit == "ratio"}
"""The figures of a pass that a row has; the others say one of these in another unit."""


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of every architecture: its name in tables and conditions, a label, a unit, and whether more is better.

    ``kind`` "count" is a plain whole number, "word" none at all.
    """

    name: str
    label: str
    kind: Kind | str
    whole: bool = True
    more_is_better: bool = False


@dataclass(frozen=True, kw_only=True)
class Question:
    """The passes of every architecture, by name, and the devices that they are timed on; ``base`` is the config whose
    fields are changed. All of it but ``keep``, which chooses among answers, determines the figures."""

    model: str
    base: Fields
    scenarios: tuple[tuple[str, Scenario], ...]
    devices: tuple[Device, ...] = ()
    attention: Attention = "flash"
    conventions: Conventions = USUAL
    deployment: Deployment = ONE_DEVICE
    dtype: str | None = None
    keep: tuple[Expression, ...] = ()
    versions: tuple[tuple[str, str], ...]

    @cached_property
    def facts(self) -> Document:
        """What determines the figures, as plain JSON data."""
        return {
            "model": self.model,
            "base": dict(self.base),
            "scenarios": {name: plain(scenario) for name, scenario in self.scenarios},
            "devices": [device.name for device in self.devices],
            "device_facts": hashlib.sha256(repr(self.devices).encode()).hexdigest(),
            "attention": self.attention,
            "conventions": plain(self.conventions),
            "deployment": repr(self.deployment),
            "dtype": self.dtype,
            "analytic_model_version": ANALYTIC_MODEL_VERSION,
            "versions": dict(self.versions),
        }

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The figures of an architecture, in the order of tables."""
        found = [
            Column("parameters", "parameters", "count", more_is_better=True),
            Column("weight_bytes", "weights resident", "memory"),
        ]
        for name, _ in self.scenarios:
            figures = ((n, row) for n, row in PASS.items() if n != "weight_bytes")
            found += [
                Column(f"{name}_{n}", f"{name} {row.label}", row.unit, row.whole, row.unit == "ratio")
                for n, row in figures
            ]
            found.append(Column(f"{name}_uncosted", f"{name} ops without a rule", "count"))
            for device in self.devices:
                place = f"{name}_{identifier(device.name)}"
                where = f"{name} on {device.name}"
                found.append(Column(f"{place}_bound_s", f"{where}, bound", "second", whole=False))
                found.append(Column(f"{place}_estimate_s", where, "second", whole=False))
                found.append(Column(f"{place}_bound_by", f"{where}, bound by", "word", whole=False))
                found.append(Column(f"{place}_extrapolated", f"{where}, why extrapolated", "word", whole=False))
        short = [("ttft", "time to first token", "prefill"), ("tpot", "time per output token", "decode")]
        found += [Column(n, label, "second", whole=False) for n, label, stage in short if self.first(stage)]
        return tuple(found)

    def first(self, stage: str) -> str | None:
        """The name of the first pass of a stage, where it is timed."""
        return next((name for name, one in self.scenarios if one.stage == stage and self.devices), None)

    def key(self, values: Fields) -> str:
        """What an architecture is known by: a hash of its config and of what determines its figures."""
        config = {**self.base, **values}
        text = json.dumps(config, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES, key=self._digest).hexdigest()

    @cached_property
    def _digest(self) -> bytes:
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True, default=str).encode()).digest()

    def check_names(self, names: Mapping[str, str], fields: Fields) -> None:
        """Raises ScenarioError where a name (→ where it was given) is neither a figure nor a field."""
        known = {column.name for column in self.columns} | fields.keys()
        for name, where in names.items():
            if name not in known:
                timed = "" if self.devices or name not in ("ttft", "tpot") else "; it needs a device"
                hint = near(name, known) or "figures are columns of the table"
                raise ScenarioError(f"{where}: no figure or field is called {name}{timed}; {hint}".rstrip())


def question_versions() -> tuple[tuple[str, str], ...]:
    """Versions of what makes the figures; Python's own does not."""
    return tuple((name, number) for name, number in versions().items() if name != "python")


def named(scenarios: Sequence[Scenario]) -> tuple[tuple[str, Scenario], ...]:
    """Each pass with a name: its stage where it is the only one of it, else its sizes too (``decode_4096_b8``).

    Raises ScenarioError where two would have one name, or there is none.
    """
    if not scenarios:
        raise ScenarioError("nothing to price: give a prefill or a decode")
    stages = [scenario.stage for scenario in scenarios]
    found = {}
    for scenario in scenarios:
        name = scenario.stage if stages.count(scenario.stage) == 1 else _with_sizes(scenario)
        if name in found:
            raise ScenarioError(f"two scenarios are the same: {scenario}")
        found[name] = scenario
    return tuple(found.items())


def _with_sizes(one: Scenario) -> str:
    lengths = one.past_len if one.stage == "decode" else one.query_len
    others = {
        "b": (one.batch, 1),
        "q": (one.query_len, 1 if one.stage == "decode" else lengths),
        "after": (one.past_len, lengths if one.stage == "decode" else 0),
        "steps": (one.steps, 1),
        "chunk": (one.chunk, None),
        "enc": (one.encoder_len, None),
    }
    more = [f"{letter}{value}" for letter, (value, usual) in others.items() if value != usual]
    return "_".join([one.stage, str(lengths), *more])


def identifier(name: str) -> str:
    """A name as a word that expressions and SQL can have."""
    return re.sub(r"\W", "_", name)
