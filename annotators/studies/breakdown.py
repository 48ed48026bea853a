"""What a stage is made of: the module tree with identical layers on one line, the heaviest ops, the cache by layers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fxmeter.annotators.sheets.tables import CONTAINERS, Executions, ModuleCost, ReportedStage, StageTables
from fxmeter.models.stage_cost import StageCost

_INDEXED = re.compile(r"^\d+$")
_POSITION = re.compile(r"\.\d+$")
_SHAPE = re.compile(r"\w+\[([^]]*)\]")


@dataclass(frozen=True, slots=True)
class TreeRow:
    """A line of the module tree; ``cost`` includes all identical instances that the line stands for, ``modules`` has
    (path, instances) of what it stands for."""

    depth: int
    label: str
    cost: StageCost
    flops_share: float
    io_share: float
    modules: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class HeavyOp:
    """Executions of one op on the same shapes: ``cost`` is their sum, ``share`` that of what they are ranked by."""

    op: str
    where: str
    shapes: str
    count: int
    cost: StageCost
    share: float


@dataclass(frozen=True, slots=True)
class CacheRow:
    """Layers whose cache is alike: ``layer_bytes`` each, ``bytes`` together.

    ``kept`` says in words what such a layer keeps, ``tensors`` has (names, shape) for each shape.
    """

    layers: str
    kept: str
    tensors: tuple[tuple[str, tuple[int, ...]], ...]
    layer_bytes: int
    bytes: int


KEPT = {
    "DynamicLayer": "every token",
    "DynamicSlidingWindowLayer": "window",
    "DynamicIndexedLayer": "every token, index",
    "DeepseekV4CSACache": "window, compressed",
    "DeepseekV4HCACache": "window, compressed",
    "LinearAttentionLayer": "state",
    "LinearAttentionAndFullAttentionLayer": "every token, state",
    "LinearAttentionAndSlidingWindowAttentionLayer": "window, state",
}
"""transformers' class of a cache layer → what it keeps. Any other class is shown by its name."""
ATTENDS = {
    "DynamicLayer": "full",
    "DynamicSlidingWindowLayer": "sliding",
    "LinearAttentionLayer": "linear",
    "LinearAttentionAndFullAttentionLayer": "linear, full",
    "LinearAttentionAndSlidingWindowAttentionLayer": "linear, sliding",
}
"""The same → what a layer that has it attends to, where no word of ``KEPT`` says it better."""


def cache_rows(stage: StageTables) -> list[CacheRow]:
    """What the pass leaves in the cache, layers alike on one row."""
    groups: dict[tuple[str, tuple[tuple[str, tuple[int, ...]], ...], int], list[int]] = {}
    for item in stage.kv_cache:
        named: dict[tuple[int, ...], list[str]] = {}
        for name, shape in zip(item.names, item.shapes, strict=True):
            named.setdefault(shape, []).append(_POSITION.sub("", name))
        tensors = tuple((", ".join(filter(None, names)), shape) for shape, names in named.items())
        groups.setdefault((item.kind, tensors, item.bytes), []).append(item.layer)
    return [
        CacheRow(f"{spans(layers)} ({len(layers)}×)", _kept(kind), tensors, nbytes, nbytes * len(layers))
        for (kind, tensors, nbytes), layers in groups.items()
    ]


def _kept(kind: str) -> str:
    """What a kind of cache keeps, in words: "every token, self-attention", "encoder's output, cross-attention"."""
    name, *of = kind.split(", ")
    kept = "encoder's output" if of == ["cross-attention"] else KEPT.get(name, name)
    return ", ".join([kept, *of])


def module_tree(stage: StageTables, depth: int, least_share: float = 0.001) -> list[TreeRow]:
    """The tree of a stage's modules, down to ``depth`` levels.

    Identical layers share a line, containers that execute nothing are left out, and modules with less than
    ``least_share`` of the stage's FLOPs and of its bytes are counted together at the end of their parent.
    """
    children: dict[str, list[ModuleCost]] = {}
    for module in stage.modules.values():
        if module.path and module.class_name not in CONTAINERS:
            children.setdefault(_visible_parent(module.path, stage), []).append(module)

    def row(level: int, label: str, cost: StageCost, *modules: ModuleCost) -> TreeRow:
        whole = stage.cost
        shares = _share(cost.flops, whole.flops), _share(cost.io_bytes, whole.io_bytes)
        return TreeRow(level, label, cost, *shares, tuple((module.path, module.times) for module in modules))

    def below(parent: str, level: int) -> Iterator[TreeRow]:
        small: list[ModuleCost] = []
        kinds = told_apart(stage, [module.path for module in children.get(parent, ())])
        for module in children.get(parent, ()) if level <= depth else ():
            label = f"{_label(module.path, parent, stage)} {kinds.get(module.path, '')}".rstrip()
            line = row(level, label, module.cost * module.times, module)
            if max(line.flops_share, line.io_share) < least_share:
                small.append(module)
            else:
                yield line
                yield from below(module.path, level + 1)
        if small:
            names = "1 module" if len(small) == 1 else f"{len(small)} modules"
            cost = StageCost.total(module.cost * module.times for module in small)
            yield row(level, f"({names} below {least_share:.1%})", cost, *small)

    return [row(0, stage.modules[""].class_name, stage.cost, stage.modules[""]), *below("", 1)]


def told_apart(stage: StageTables, paths: Sequence[str]) -> dict[str, str]:
    """What tells layers of one list apart, in a word or two for each: "sliding" or "full", "dense" or "experts".

    Nothing of layers that have it alike, and of modules that are in no list.
    """
    layers = [path for path in paths if _INDEXED.match(path.rpartition(".")[2])]
    lists = {path.rpartition(".")[0] for path in layers}
    found: dict[str, str] = {}
    for around in lists:
        members = [path for path in layers if path.rpartition(".")[0] == around]
        routed = {path: "experts" if _routed(stage, path) else "dense" for path in members}
        attends = {path: _attends(stage, path) for path in members}
        said = [words for words in (attends, routed) if len(set(words.values())) > 1]
        found |= {path: ", ".join(filter(None, (words[path] for words in said))) for path in members}
    return found


def _routed(stage: StageTables, path: str) -> bool:
    """Whether a layer has routed experts, which transformers' models call so."""
    return any(other.startswith(f"{path}.") and "experts" in other.split(".") for other in stage.modules)


def _attends(stage: StageTables, path: str) -> str:
    """What a layer attends to, by what its slot of the cache keeps; nothing where the slot is not the layer's."""
    slots = [item for item in stage.kv_cache if item.layer == int(path.rpartition(".")[2])]
    if not slots or sum(item.bytes for item in slots) != stage.modules[path].cost.kv_bytes:
        return ""
    kinds = dict.fromkeys(item.kind.partition(",")[0] for item in slots)
    return ", ".join(ATTENDS.get(kind, KEPT.get(kind, kind)) for kind in kinds)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


@dataclass(frozen=True, slots=True)
class LargestPart:
    """A module, folded ones together, and what its own code has of a figure, outside of its submodules."""

    where: str
    class_name: str
    amount: int


def largest_parts(stage: StageTables, figure: str, count: int) -> list[LargestPart]:
    """The ``count`` modules whose own code has most of a figure."""
    parts = [
        LargestPart(path_label(module.path, stage), module.class_name, getattr(module.own * module.times, figure))
        for module in stage.modules.values()
    ]
    return sorted((part for part in parts if part.amount), key=lambda part: -part.amount)[:count]


def heaviest_ops(stage: ReportedStage, count: int, by: str) -> list[HeavyOp]:
    """The ``count`` heaviest groups of executions of one op on the same shapes, by "flops" or "io_bytes"."""
    groups: dict[tuple[str, str], list[Executions]] = {}
    for item in stage.executed:
        groups.setdefault((item.op, item.inputs), []).append(item)
    heavy = [
        HeavyOp(
            op.removesuffix(".default"),
            common_name(part.module for part in parts),
            _SHAPE.sub(lambda m: m[1].replace(", ", "×"), inputs),
            sum(part.count for part in parts),
            (total := StageCost.total(part.cost for part in parts)),
            _share(getattr(total, by), getattr(stage.cost, by)),
        )
        for (op, inputs), parts in groups.items()
    ]
    heavy.sort(key=lambda item: (-getattr(item.cost, by), item.op, item.shapes))
    return heavy[:count]


def spans(indices: Iterable[int]) -> str:
    """Whole numbers in order as ranges: 0, 1, 2, 5 → "0-2,5"; of many ranges the first two and the last."""
    parts: list[list[int]] = []
    for index in sorted(indices):
        if parts and index == parts[-1][1] + 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    texts = [str(a) if a == b else f"{a}-{b}" for a, b in parts]
    return ",".join(texts) if len(texts) <= 4 else f"{','.join(texts[:2])},…,{texts[-1]}"


def _visible_parent(path: str, stage: StageTables) -> str:
    parent = path.rpartition(".")[0]
    while parent and stage.modules[parent].class_name in CONTAINERS:
        parent = parent.rpartition(".")[0]
    return parent


def _label(path: str, parent: str, stage: StageTables) -> str:
    """The path below its visible parent; a folded layer with all its positions: "layers.1-11 (11×)"."""
    name = path[len(parent) + 1 :] if parent else path
    alike = [path, *(folded for folded, stand_in in stage.modules.folds.items() if stand_in == path)]
    return name if len(alike) == 1 else f"{_with_positions(name, alike)} ({len(alike)}×)"


def path_label(path: str, stage: StageTables) -> str:
    """A module's whole path, a folded layer in it with all its positions: "model.layers.1-11.mlp"."""
    folded: dict[str, list[str]] = {}
    for member, stand_in in stage.modules.folds.items():
        folded.setdefault(stand_in, [stand_in]).append(member)
    for stand_in, members in folded.items():
        if path == stand_in or path.startswith(stand_in + "."):
            return _with_positions(stand_in, members) + path[len(stand_in) :]
    return path or "(root)"


def _with_positions(path: str, members: Iterable[str]) -> str:
    """The path of a member of a list, with the positions of all ``members`` in place of its own."""
    head, dot, _ = path.rpartition(".")
    return head + dot + spans(int(member.rpartition(".")[2]) for member in members)


def common_name(modules: Iterable[str]) -> str:
    """Where a group of ops runs: the modules' own names, positions in lists left out."""
    names: list[str] = []
    for module in dict.fromkeys(modules):
        parts = [part for part in module.split(".") if not _INDEXED.match(part)]
        name = ".".join(parts[-2:]) or "(root)"
        if name not in names:
            names.append(name)
    return names[0] if len(names) == 1 else f"{names[0]} +{len(names) - 1}"
