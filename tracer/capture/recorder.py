"""Recording a forward pass as a ``torch.fx.Graph`` with the shape, storage and module of every tensor.

    module + example inputs ──on meta──▶ every aten op passes Recorder ──▶ fx.Graph with a NodeMeta on each node

A dispatch mode sees real storages, so views, in-place writes and lifetimes are facts here, not deductions. Nothing
in this file keeps a tensor alive: nodes hold specs, and tensors are found by identity through weak references.
"""

from __future__ import annotations

import operator
import sys
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from fxmeter.models.names import Kwargs
from fxmeter.tracer.capture.choices import chooses
from fxmeter.tracer.capture.facts import Facts, facts_of
from fxmeter.tracer.capture.folding import CannotFoldError
from fxmeter.tracer.capture.higher_order import run_higher_order
from fxmeter.tracer.capture.names import names_of
from fxmeter.tracer.capture.questions import LARGEST, QUESTIONS, Questions, UnknownValueError, is_known
from fxmeter.tracer.capture.seen import Storages, TensorNodes, dense, note, refuse_other_threads
from fxmeter.tracer.graph.instances import Instance
from fxmeter.tracer.graph.nodes import NodeMeta, changed_specs, describe, meta_of
from fxmeter.tracer.graph.spec import Role, Spec, Storage
from fxmeter.tracer.graph.values import Args
from fxmeter.tracer.operators.devices import run_together
from fxmeter.tracer.operators.remembered import run_or_remember
from fxmeter.tracer.operators.taken_apart import parts_of
from fxmeter.tracer.private import (
    HigherOrderOperator,
    TorchDispatchMode,
    is_distributed,
    without_dispatch,
)
from fxmeter.tracer.state.session import running
from fxmeter.tracer.state.tree import derived

_META = torch.device("meta")


class Recorder(TorchDispatchMode):
    """While active, appends a node to ``graph`` for every op that is dispatched.

    Parameters and buffers of ``root`` are found by identity; a tensor that is none of them, not declared by
    :meth:`placeholder` and not made by a recorded op is a constant that the model's code carries. ``values`` are the
    tensors with data that others on meta stand for, by their ids. With ``on_meta`` the pass runs on meta: whatever its
    code makes or keeps elsewhere is taken to be there too.
    """

    def __init__(self, root: nn.Module, values: Mapping[int, Tensor] | None = None, *, on_meta: bool = True) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.instances: tuple[Instance, ...] = ()
        self.constants: dict[str, Tensor] = {}
        self.calls: dict[str, int] = {}
        self._paths, self._weights, self._members = derived(root, names_of)
        self._stack: list[tuple[str, tuple[str, ...]]] = [("", ())]
        self._nodes = TensorNodes()
        self._read: dict[str, fx.Node] = {}
        self._handed: list[tuple[weakref.ref[Tensor], str]] = []
        self._storages = Storages()
        self.questions = Questions()
        self._data = values or {}
        self._on_meta = on_meta
        self._met_meta = self._met_other = False
        self._thread = get_ident()
        self._elsewhere: str | None = None

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled inside; the wrapper would be half the cost of recording an op

    @property
    def storages(self) -> list[Storage]:
        """Every storage that the pass has seen, in the order of their first sight."""
        return self._storages.seen

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside the block the ops and module calls of this thread are recorded."""
        hooks: list[RemovableHandle] = []
        try:
            hooks.append(register_module_forward_pre_hook(self._enter_module))
            hooks.append(register_module_forward_hook(self._leave_module, always_call=True))
            with running(), self:
                try:
                    yield
                finally:
                    self._storages.close()
        finally:
            for hook in hooks:
                hook.remove()
        self._let_go()
        refuse_other_threads(self._elsewhere)

    def _enter_module(self, module: nn.Module, args: object) -> None:
        if get_ident() != self._thread:
            if id(module) in self._paths and self._thread != -1:
                self._elsewhere = self._paths[id(module)]
            return
        around, calls = self._stack[-1]
        path = self._paths.get(id(module), around)
        if around and not path.startswith(around + "."):
            path = around  # registered elsewhere, or not at all: a part of what runs it
        self.calls[path] = self.calls.get(path, 0) + 1
        if id(module) in self._members:
            calls = (*calls, f"{path}#{self.calls[path]}")
        self._stack.append((path, calls))

    def _leave_module(self, module: nn.Module, args: object, out: object) -> None:
        if get_ident() != self._thread:
            return
        path, _ = self._stack.pop()
        error = sys.exception()
        if error is not None and path:
            note(error, path)

    def __torch_dispatch__(self, func: Any, types: Args, args: Args = (), kwargs: Kwargs | None = None) -> Any:
        kwargs = kwargs or {}
        if types and is_distributed(types):
            return NotImplemented  # a distributed tensor runs the ops of this rank, which come back here
        if isinstance(func, HigherOrderOperator):
            with self:
                return run_higher_order(func, args, kwargs, self)
        facts = facts_of(func)
        if facts.has_body and (parts := parts_of(func, args, kwargs)) is not None:
            with self:
                return parts(*args, **kwargs)
        if self._handed:
            self._let_go()
        self._met_meta = self._met_other = False
        arguments, keywords = self._to_nodes(args), self._to_nodes(kwargs)
        node = self.graph.create_node("call_function", func, name=facts.name)
        node.args = arguments  # not at once: fx would search them for symbols, for a quarter of its time
        if keywords:
            node.kwargs = keywords
        module, calls = self._stack[-1]
        meta = describe(node, NodeMeta(module=module, calls=calls, instances=self.instances))
        began = self.moment()
        out = self._run(facts, node, args, kwargs)
        if facts.assumed:
            self.assume(facts.assumed)
        meta.is_known = is_known(node, meta)
        if isinstance(out, Tensor):
            meta.spec = self._know(out, node, "activation", born=self.moment())
        elif isinstance(out, (tuple, list)):
            meta.spec = tuple(self._part(item, node, index) for index, item in enumerate(out))
        meta.span = (began, self.moment())
        for changed in changed_specs(node) if facts.changes else ():
            self.questions.changed(node, changed.storage)
        return out

    def holds(self, predicate: Tensor) -> bool | None:
        """Whether a predicate does; None where it depends on data."""
        node = self.node_of(predicate)
        return None if node is None else self.questions.truth(node)

    def assume(self, text: str) -> None:
        """The module that runs has to take something for granted, in words."""
        self.questions.assumptions[f"{text} ({self._stack[-1][0] or 'its own forward'})"] = None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside the block no module call is recorded."""
        thread, self._thread = self._thread, -1
        try:
            yield
        finally:
            self._thread = thread

    def _run(self, facts: Facts, node: fx.Node, args: Any, kwargs: Kwargs) -> Any:
        """What the op returns, or else the answer to what it asks about data."""
        func, run = facts.op, facts.run
        makes_elsewhere = not self._met_meta and kwargs.get("device") not in (None, _META)
        try:
            if self._on_meta and (self._met_other or makes_elsewhere):
                return dense(run_together(run, args, kwargs))
            return dense(run_or_remember(func, run, args, kwargs))
        except Exception as error:
            if func in QUESTIONS and isinstance(error, (NotImplementedError, RuntimeError)):
                try:
                    return self.questions.answer(func, node, args, kwargs)
                except UnknownValueError:
                    pass
            note(error, f"{func} in {meta_of(node).module or 'its own forward'}")
            raise

    def _part(self, item: Any, node: fx.Node, index: int) -> Spec | None:
        """One of several results, as a node of its own."""
        if not isinstance(item, Tensor):
            return None
        part, whole = self.graph.call_function(operator.getitem, (node, index)), meta_of(node)
        spec = self._know(item, part, "activation", born=self.moment())
        is_known = whole.is_known and (index > 0 or not chooses(node))  # a choice says where, not what is there
        describe(part, NodeMeta(spec, whole.module, whole.calls, whole.instances, is_known=is_known))
        return spec

    def moment(self) -> int:
        """The clock's next tick. Whatever happens to storages, ops and layers has a moment of its own."""
        return self._storages.moment()

    def placeholder(self, name: str, tensor: Tensor, role: Role) -> fx.Node:
        """Declare a tensor that exists before the pass."""
        node = self.graph.placeholder(name)
        spec = self._know(tensor, node, role, born=-1)
        meta = describe(node, NodeMeta(spec, constant=self._data.get(id(tensor))))
        meta.is_known = is_known(node, meta)
        return node

    def output(self, value: Any) -> None:
        """Declare what the pass returns: tensors, in nested tuples, lists and dicts."""
        describe(self.graph.output(self._to_nodes(value)), NodeMeta())

    def node_of(self, tensor: Tensor) -> fx.Node | None:
        """The node whose output this very tensor is, or None."""
        return self._nodes.of(tensor)

    def hand_back(self, path: str, tensor: Tensor) -> Tensor:
        """The result of a call that is not run, of a member of the same list as the one at ``path``.

        To the graph it is the same as ``tensor``, which nobody may hold any more.
        """
        self._let_go()
        node = self.node_of(tensor)
        if node is None:
            raise CannotFoldError(path, "a skipped layer hands back a tensor that no op made")
        with without_dispatch():
            result = tensor.detach()
        self._nodes.put(result, node)
        self._handed.append((weakref.ref(tensor), path))
        return result

    def _let_go(self) -> None:
        """Whoever had what was handed back has let go of it when the next op begins, of it and of its views."""
        for reference, path in self._handed:
            if reference() is not None:
                raise CannotFoldError(path, "what a skipped layer handed back is used or held in its own right")
        self._handed.clear()

    def storage_of(self, tensor: Tensor) -> Storage | None:
        """The storage record behind a tensor that the recorder has seen, or None."""
        return self._storages.of(tensor)

    def role_of(self, tensor: Tensor) -> Role:
        """The role of a tensor's storage as far as it is known now: the cache is settled after the pass."""
        if id(tensor) in self._weights:
            return "weight"
        storage = self.storage_of(tensor)
        return "activation" if storage is None else storage.role

    def _to_nodes(self, value: Any) -> Any:
        """``value`` with every tensor in it replaced by its node."""
        if isinstance(value, Tensor):
            self._met_meta |= value.is_meta
            self._met_other |= not value.is_meta
            return self.node_of(value) or self._unseen(value)
        if isinstance(value, (list, tuple)):
            return type(value)(map(self._to_nodes, value)) if type(value) in (list, tuple) else value
        if isinstance(value, dict):
            return {key: self._to_nodes(item) for key, item in value.items()}
        return value

    def _unseen(self, tensor: Tensor) -> fx.Node:
        """A get_attr node for a weight at its first use, or for a constant of the model's code."""
        name = self._weights.get(id(tensor))
        if name is None:
            name = f"_constant_{len(self.constants)}"
            self.constants[name] = tensor
        elif name in self._read:  # another parameter over the same elements
            self._know(tensor, self._read[name], "weight", born=-1)
            return self._read[name]
        node = self.graph.create_node("get_attr", name, name=name.replace(".", "_"))
        self._read[name] = node
        is_weight = name not in self.constants
        constant = self._data.get(id(tensor))
        if constant is None and not is_weight and not tensor.is_meta:
            constant = tensor.detach().clone() if tensor.numel() <= LARGEST else tensor
        spec = self._know(tensor, node, "weight", born=-1)
        meta = describe(node, NodeMeta(spec, is_weight=is_weight, constant=constant))
        meta.is_known = is_known(node, meta)
        return node

    def _know(self, tensor: Tensor, node: fx.Node, role: Role, born: int) -> Spec:
        storage = self._storages.behind(tensor, role, born)
        self._nodes.put(tensor, node)
        return Spec(tuple(tensor.shape), tensor.dtype, tensor.stride(), int(tensor.storage_offset()), storage)
