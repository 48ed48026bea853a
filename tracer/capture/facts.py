"""What recording asks of an op each time that it runs, looked up once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from fxmeter.tracer.graph.schema import changed_arguments, once_an_op
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


@once_an_op
def facts_of(op: OpOverload) -> Facts:
    """The facts of an op."""
    run = partial(META_KERNELS[op], op) if op in META_KERNELS else op
    return Facts(op, target_name(op), run, bool(changed_arguments(op)), body_of(op) is not None, ASSUMED.get(op, ""))
