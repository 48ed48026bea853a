"""What recording asks of an op each time that it runs, looked up once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from fxmeter.tracer.graph.schema import changed_arguments
from fxmeter.tracer.graph.values import Function
from fxmeter.tracer.operators.meta_kernels import ASSUMED, META_KERNELS
from fxmeter.tracer.operators.taken_apart import body_of
from fxmeter.tracer.private import OpOverload, target_name


@dataclass(frozen=True, slots=True)
class Facts:
    """``name`` is what fx calls a node of the ``op``; ``run`` runs it, and ``changes`` says whether that changes what
    it is given, ``has_body`` whether it may be made of others, and ``assumed`` what is taken for granted of data."""

    op: OpOverload
    name: str
    run: Function
    changes: bool
    has_body: bool
    assumed: str


_FACTS: dict[int, Facts] = {}
"""By the op's id: it hashes slowly. The facts keep it, so that no other comes to have its id."""


def facts_of(op: OpOverload) -> Facts:
    """The facts of an op."""
    facts = _FACTS.get(id(op))
    if facts is None:
        run = partial(META_KERNELS[op], op) if op in META_KERNELS else op
        has_body = body_of(op) is not None
        changes = bool(changed_arguments(op))
        facts = _FACTS[id(op)] = Facts(op, target_name(op), run, changes, has_body, ASSUMED.get(op, ""))
    return facts
