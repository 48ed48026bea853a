"""Answering what a model's code asks about data, where the answer needs none.

On meta a tensor has no values, yet code asks for some: is there padding, how long is the longest sequence, are these
positions packed. What leads to such a question is nearly always bookkeeping on integers that starts from constants,
positions and inputs. Here that part of the recorded graph, and nothing else, is run on the CPU. Inputs have the values
that were given; token ids without values count as ordinary tokens. What depends on weights stays unknown, with one
exception: the positions that a top-k or the like picks are spread evenly (:mod:`fxmeter.tracer.capture.choices`), so
that code which asks who got how many tokens gets an even split, and experts that compute nothing get their share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fxmeter.models.names import Kwargs
from fxmeter.tracer.capture.choices import assumption_of, chooses, evenly
from fxmeter.tracer.graph.nodes import NodeMeta, meta_of, spec_of, specs_of
from fxmeter.tracer.graph.schema import changed_arguments
from fxmeter.tracer.graph.spec import Spec, Storage
from fxmeter.tracer.graph.values import Args
from fxmeter.tracer.operators.meta_kernels import META_KERNELS
from fxmeter.tracer.private import OpOverload, pytree, without_modes

aten = torch.ops.aten
LARGEST = 2**26
"""Elements of the largest tensor that is worked out: beyond it the question stays open."""
MOST_KEPT = 2**27
"""Elements of all that is kept at once; beyond it, values are worked out again."""
_TOKEN = 5
"""Stands for an ordinary token: no config in use gives it to padding or a separator."""


QUESTIONS = frozenset(
    {
        aten._local_scalar_dense.default,
        aten.equal.default,
        aten.nonzero.default,
        aten._to_copy.default,
        aten.index.Tensor,
        aten.index_put_.default,
        aten.index_put.default,
        aten.masked_select.default,
        aten.bincount.default,
        aten._pack_padded_sequence.default,
        aten._ctc_loss.Tensor,
        aten._ctc_loss_backward.Tensor,
        aten._unique.default,
        aten._unique2.default,
        aten.allclose.default,
        aten.unique_consecutive.default,
        aten.unique_dim.default,
        aten.repeat_interleave.Tensor,
    }
)
"""The ops that ask for values, or for a shape that depends on them: a copy where it leaves meta, an index by a mask."""


_WITH_LENGTHS = {
    aten._ctc_loss.Tensor: (2, aten._ctc_loss.default),
    aten._ctc_loss_backward.Tensor: (3, aten._ctc_loss_backward.default),
}
"""Op → where its two tensors of lengths are, and the same op that takes lists."""


class UnknownValueError(Exception):
    """The answer depends on data."""


def is_known(node: fx.Node, meta: NodeMeta) -> bool:
    """Whether the values of a node follow from constants, positions and tokens, so that a question has an answer."""
    if node.op == "call_function":
        return all(meta_of(source).is_known for source in node.all_input_nodes) or chooses(node)
    spec = meta.spec
    if not isinstance(spec, Spec):
        return False
    if node.op == "placeholder":
        return meta.constant is not None or (spec.role == "input" and not spec.is_float)
    return meta.constant is not None or not (spec.is_float or meta.is_weight)


class Questions:
    """The answers of one recording. What has been worked out is kept, so that each op is run once, whoever asks."""

    def __init__(self) -> None:
        self.assumptions: dict[str, None] = {}
        """What had to be assumed for an answer, in words."""
        self._values: dict[fx.Node, Any] = {}
        self._elements = 0
        self._changes: dict[int, list[fx.Node]] = {}
        self._waiting: dict[int, list[fx.Node]] = {}
        self._storages: dict[fx.Node, frozenset[int]] = {}
        self._changed_by: dict[int, fx.Node] = {}

    def changed(self, node: fx.Node, storage: Storage) -> None:
        """A node changes a storage in place."""
        self._changes.setdefault(storage.id, []).append(node)
        self._waiting.setdefault(storage.id, []).append(node)

    def truth(self, node: fx.Node) -> bool | None:
        """Whether a predicate holds; None where it depends on data."""
        try:
            return bool(self._asked([node])[0])
        except UnknownValueError:
            return None

    def answer(self, func: Any, node: fx.Node, args: Args, kwargs: Kwargs) -> Any:
        """What ``func`` returns, on meta where it returns tensors. Raises UnknownValueError where weights decide."""
        if func is aten.masked_select.default:
            (mask,) = self._asked([node.args[1]])  # type: ignore[list-item]
            picked = int(mask.expand(torch.broadcast_shapes(mask.shape, args[0].shape)).sum())
            return args[0].new_empty(picked)
        if func is aten._pack_padded_sequence.default:  # how many sequences are that long is for code to read
            (lengths,) = self._asked([node.args[1]])  # type: ignore[list-item]
            return func(args[0], lengths, *args[2:], **kwargs)
        if func in _WITH_LENGTHS:  # the op with lists of lengths in the place of tensors
            at, plain = _WITH_LENGTHS[func]
            lengths = tuple(tensor.tolist() for tensor in self._asked(node.args[at : at + 2]))  # type: ignore[arg-type]
            node.target, node.args = plain, (*node.args[:at], *lengths, *node.args[at + 2 :])
            return META_KERNELS[plain](plain, *args[:at], *lengths, *args[at + 2 :], **kwargs)
        if func in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default):
            return self._by_mask(func, node, args, kwargs)
        sources = [source for source in node.all_input_nodes if isinstance(meta_of(source).spec, Spec)]
        known = dict(zip(sources, self._asked(sources), strict=True))
        on_cpu = fx.map_arg((node.args, node.kwargs), lambda n: known[n])
        out = func(*on_cpu[0], **{**on_cpu[1], **({"device": "cpu"} if "device" in on_cpu[1] else {})})
        if func is aten._to_copy.default:
            return out
        return pytree.tree_map_only(Tensor, lambda t: t.to("meta"), out)

    def _by_mask(self, func: Any, node: fx.Node, args: Args, kwargs: Kwargs) -> Any:
        """An index by masks, as one by the positions where they hold."""
        indices: list[Any] = []
        for index, source in zip(args[1], node.args[1], strict=True):  # type: ignore[arg-type]
            if isinstance(index, Tensor) and index.dtype == torch.bool:
                held = self._asked([source])[0].nonzero(as_tuple=True)
                indices += [positions.to("meta") for positions in held]
            else:
                indices.append(index)
        return func(args[0], indices, *args[2:], **kwargs)

    def _asked(self, nodes: Sequence[fx.Node]) -> list[Any]:
        """The tensors that ``nodes`` would hold on the CPU."""
        needed = self._needed(nodes)
        if self._elements > MOST_KEPT or any(self._comes_too_late(node) for node in needed):
            self._forget()
            needed = self._needed(nodes)
        with without_modes():
            for node in needed:
                self._work_out(node)
        return [self._values[node] for node in nodes]

    def _needed(self, nodes: Sequence[fx.Node]) -> list[fx.Node]:
        """What has not been worked out yet of all that decides the values of ``nodes``, in order of execution."""
        todo, seen = list(nodes), set(nodes)
        needed = []
        while todo:
            node = todo.pop()
            more = [change for storage in self._storages_of(node) for change in self._waiting.get(storage, ())]
            if node not in self._values:
                if not meta_of(node).is_known or any(spec.numel > LARGEST for spec in specs_of(node)):
                    raise UnknownValueError
                needed.append(node)
                if not chooses(node):
                    more += node.all_input_nodes
            fresh = [node for node in dict.fromkeys(more) if node not in seen]
            seen.update(fresh)
            todo += fresh
        return sorted(needed)

    def _storages_of(self, node: fx.Node) -> frozenset[int]:
        """Where the result of a node is; asked again and again, of nodes with hundreds of them.

        Of several results each is a node of its own, and what changes one of them says nothing of the others.
        """
        if node not in self._storages:
            spec = meta_of(node).spec
            self._storages[node] = frozenset((spec.storage.id,) if isinstance(spec, Spec) else ())
        return self._storages[node]

    def _read(self, node: fx.Node) -> Iterator[int]:
        return (storage for source in node.all_input_nodes for storage in self._storages_of(source))

    def _comes_too_late(self, node: fx.Node) -> bool:
        """Whether what a node reads has been changed meanwhile by a node after it."""
        changed = self._changed_by
        return bool(changed) and any(id in changed and node < changed[id] for id in self._read(node))

    def _work_out(self, node: fx.Node) -> None:
        self._values[node] = value = self._run(node)
        self._elements += sum(part.numel() for part in pytree.tree_leaves(value) if isinstance(part, Tensor))
        if isinstance(node.target, OpOverload) and changed_arguments(node.target):
            for storage in self._read(node):
                if node in (waiting := self._waiting.get(storage, [])):
                    waiting.remove(node)
                    self._changed_by[storage] = node

    def _run(self, node: fx.Node) -> Any:
        meta = meta_of(node)
        target: Any = node.target
        if node.op in ("placeholder", "get_attr"):
            if meta.constant is not None:
                return meta.constant.to("cpu", copy=True)  # ops in place change the copy
            spec = spec_of(node)
            if node.op == "placeholder":
                self.assumptions[f"every token of {target} is an ordinary one: no padding, no separator"] = None
                return torch.full(spec.shape, _TOKEN, dtype=spec.dtype)
            # a list of positions that torch made a tensor of, unseen: whichever they are, all tokens are alike
            return torch.zeros(spec.shape, dtype=spec.dtype)
        if chooses(node):
            self.assumptions[assumption_of(node)] = None
            return evenly(node)
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: self._values[source])
        if "device" in kwargs:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        return target(*args, **kwargs)

    def _forget(self) -> None:
        """Start again: every value is worked out anew when somebody asks."""
        self._values.clear()
        self._changed_by.clear()
        self._elements = 0
        self._waiting = {storage: list(changes) for storage, changes in self._changes.items()}
