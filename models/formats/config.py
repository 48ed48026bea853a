"""Which matrices of a checkpoint have which format.

A quantiser converts ``nn.Linear`` layers and the stacked matrices of experts; the output head stays as it is unless the
config says otherwise, and so do embeddings, norms, routers, biases and whatever the config's own lists name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fxmeter.models.formats.kv import KvFormat
from fxmeter.models.formats.parameter import Parameter
from fxmeter.models.formats.storage import StorageFormat

_CLASSES = ("Linear",)
"""Targets that mean a class of modules, not a name."""
_STACKED = {"gate_up_proj": ("gate_proj", "up_proj", "w1", "w3"), "down_proj": ("down_proj", "w2")}
"""Parameter of stacked experts → the matrices in it, as files that keep experts one by one name them."""


@dataclass(frozen=True, slots=True)
class WeightFormats:
    """Formats by module. ``groups`` are (what they cover, format): the first that names a module counts, then the first
    for every "Linear". ``kept`` are modules that stay as they are; ``head`` says whether the output head is converted
    too; ``only_experts`` that nothing but experts is. ``kv`` is the cache's format where the checkpoint says that."""

    method: str
    groups: tuple[tuple[str, StorageFormat], ...]
    kept: tuple[str, ...] = ()
    head: bool = False
    only_experts: bool = False
    kv: KvFormat | None = None

    @property
    def label(self) -> str:
        """Names of the formats, for a header."""
        return " and ".join(dict.fromkeys(item.name for _, item in self.groups)) or self.method

    @property
    def adds(self) -> tuple[str, ...]:
        """The work that an engine does for the formats and that is not priced, in words."""
        return tuple(dict.fromkeys(item.adds for _, item in self.groups if item.adds))

    def assigned(self, parameters: Sequence[Parameter]) -> Mapping[str, StorageFormat]:
        """Path of each of a model's parameters that has a format → the format."""
        return {each.path: found for each in parameters if (found := self.of(each)) is not None}

    def of(self, parameter: Parameter) -> StorageFormat | None:
        """The format of one parameter; None where it stays as it is."""
        role, path = parameter.role, parameter.module
        if role in ("embedding", "other") or (role == "head" and not self.head):
            return None
        if self.only_experts and role != "experts":
            return None
        names = tuple(_names_of(path)) if role == "experts" else (path,)
        if any(_means(pattern, name) for pattern in self.kept for name in names):
            return None
        for target, item in self.groups:
            if target not in _CLASSES and any(_means(target, name) for name in names):
                return item
        return next((item for target, item in self.groups if target in _CLASSES), None)


def _names_of(path: str) -> Iterator[str]:
    """Names that checkpoints have for what is stacked at ``path``: the first expert's own matrices too."""
    yield path
    owner, _, last = path.rpartition(".")
    for part in _STACKED.get(last, ()):
        yield f"{owner}.0.{part}"


def _means(pattern: str, path: str) -> bool:
    """Whether a config's entry means the module: a regular expression after "re:", a glob, or a part of its path."""
    pattern = pattern.replace("language_model.", "").replace(r"language_model\.", "")  # the text model of several
    if pattern.startswith("re:"):
        return re.match(pattern[3:], path) is not None
    if "*" in pattern:
        return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), path) is not None
    return path == pattern or f".{pattern}." in f".{path}."
