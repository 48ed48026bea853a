"""One registry: which rule prices which op.

    @rule(aten.mm.default)                                           a function that reads like the op it prices
    per_element({aten.exp.default: 1}, fuses="pointwise")            a row of a table: FLOPs for each element
    free({aten.cat.default: "a copy"}, fuses="pointwise")            a row whose value is the reason

Keys are ``OpOverload``s. A second rule for an op is refused, and so is a rule whose parameters are not the op's. How an
op fuses is said beside its price; one that says nothing is a kernel of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fxmeter.annotators.rules.cost import Flops, Fuses, Moves
from fxmeter.models.errors import RuleError
from fxmeter.models.names import Fields
from fxmeter.models.stage_cost import Size
from fxmeter.tracer.graph.schema import functional, returned_into
from fxmeter.tracer.graph.spec import Spec, specs_in
from fxmeter.tracer.private import OpOverload

Arguments = Fields
"""An op's arguments by name, tensors as Specs, and with them its result ``out`` and what ``_CONTEXT`` names."""
Formula = Callable[..., Flops]
MovesFormula = Callable[..., Moves]
_Result = TypeVar("_Result", Flops, Moves)
_WHOLE = ("arguments",)
_CONTEXT = frozenset({"out", "op_name", "conventions", "routed", *_WHOLE})
"""What a formula may take that is no argument of its op; with ``arguments`` alone it takes all of them as they are."""


@dataclass(frozen=True, slots=True)
class Routed:
    """Where a grouped product's rows come from: ``tokens`` tokens that chose ``top_k`` experts each."""

    tokens: Size
    top_k: Size


@dataclass(frozen=True, slots=True)
class Rule:
    """How one op is priced. ``equation`` is the first docstring line, or the reason why the op is free."""

    op: OpOverload
    equation: str
    formula: Formula | None
    moves: MovesFormula | None
    kind: str
    fuses: Fuses
    outs: tuple[str, ...] = ()
    """Arguments of an ``out=`` variant that its results are written into."""

    def flops(self, arguments: Arguments) -> Flops:
        """The op's arithmetic."""
        return _NOTHING if self.formula is None else _call(self.formula, arguments)

    def traffic(self, arguments: Arguments) -> Moves:
        """The op's departures from the default traffic. What a result is written into is not read."""
        moves = _DEFAULT if self.moves is None else _call(self.moves, arguments)
        if not self.outs:
            return moves
        written = {self.outs[0] if name == "out" else name: nbytes for name, nbytes in moves.written.items()}
        return Moves({**moves.read, **dict.fromkeys(self.outs, 0)}, written, moves.sent)


_NOTHING = Flops()
_DEFAULT = Moves()
_RULES: dict[OpOverload, Rule] = {}
_PARAMETERS: dict[Callable[..., Any], tuple[str, ...]] = {}


def rule(*ops: OpOverload, fuses: Fuses = "alone", moves: MovesFormula | None = None) -> Callable[[Formula], Formula]:
    """Register a function from an op's arguments (tensors as Specs) and ``out`` to its Flops.

    ``moves``, a function of the same kind, returns the Moves that are not the default. Both are returned unchanged,
    so that formulas can call one another.
    """

    def register(formula: Formula) -> Formula:
        equation = (inspect.getdoc(formula) or "").split("\n")[0]
        if not equation:
            raise RuleError(f"the rule for {ops[0]} has no equation in its docstring")
        for op in ops:
            for function in (formula, moves):
                if function is not None:
                    _check_signature(op, function)
            _add(Rule(op, equation, formula, moves, "formula", fuses))
        return formula

    return register


def free(reasons: Mapping[OpOverload, str], *, fuses: Fuses = "alone", moves: MovesFormula | None = None) -> None:
    """Register ops that do no floating-point arithmetic, each with the reason."""
    for op, reason in reasons.items():
        _add(Rule(op, reason, None, moves, "free", fuses))


def per_element(flops: Mapping[OpOverload, int], of: str = "out", *, fuses: Fuses = "alone") -> None:
    """Register ops that cost a number of FLOPs for each element of ``of`` ("out", or an argument's name)."""
    for op, count in flops.items():
        _add(Rule(op, f"{count} per element of {of}", _per_element(count, of), None, "table", fuses))


def _per_element(count: int, of: str) -> Formula:
    def flops(arguments: Arguments) -> Flops:
        return Flops(vector=float_ops(count, first(arguments[of]), arguments))

    return flops


def float_ops(count: int, spec: Spec, arguments: Arguments) -> Size:
    """``count`` per element of ``spec`` where the op computes in floating point; 0 for integers and booleans.

    Complex arithmetic is done on both parts, so it costs 2; the product of two complex numbers is 4 multiplications
    and 2 additions, 6.
    """
    operands = [s for name, value in arguments.items() if name != "out" for s in specs_in(value)]
    complex_operands = sum(s.dtype.is_complex for s in operands)
    if complex_operands:
        both = complex_operands == 2 and arguments["op_name"].startswith(("mul", "div"))
        return count * (6 if both else 2) * spec.numel
    return count * spec.numel if spec.is_float or any(s.is_float for s in operands) else 0


def first(value: Spec | Sequence[Spec]) -> Spec:
    """The (first) Spec of an op's output or argument."""
    return value if isinstance(value, Spec) else value[0]


def rule_for(op: object) -> Rule | None:
    """The rule of an op, or None: its cost is unknown. An ``out=`` variant has that of the op it is a variant of."""
    if not isinstance(op, OpOverload):
        return None
    known = _RULES.get(op)
    if known is None and (plain := functional(op)) in _RULES:
        known = replace(_RULES[plain], op=op, outs=returned_into(op))
    return known


def rules() -> tuple[Rule, ...]:
    """Every rule, by op name."""
    return tuple(sorted(_RULES.values(), key=lambda r: str(r.op)))


def described() -> dict[str, str]:
    """Op → its equation, or why it is free: what ``fxmeter ops`` prints, from ``ops.json`` beside this file."""
    return {str(rule.op): f"0: {rule.equation}" if rule.kind == "free" else rule.equation for rule in rules()}


def _call(function: Callable[..., _Result], arguments: Arguments) -> _Result:
    names = _PARAMETERS.get(function)
    if names is None:
        names = _PARAMETERS[function] = tuple(inspect.signature(function).parameters)
    if names == _WHOLE:
        return function(arguments)
    return function(**{name: arguments[name] for name in names})


def _check_signature(op: OpOverload, function: Callable[..., Any]) -> None:
    known = {argument.name for argument in op._schema.arguments} | _CONTEXT
    unknown = [name for name in inspect.signature(function).parameters if name not in known]
    if unknown:
        raise RuleError(f"the rule for {op} takes {', '.join(unknown)}, which {op._schema} does not have")


def _add(new: Rule) -> None:
    if new.op in _RULES:
        raise RuleError(f"{new.op} has a rule already: {_RULES[new.op].equation}")
    _RULES[new.op] = new
