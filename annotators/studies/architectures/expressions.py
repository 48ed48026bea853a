"""Expressions between fields and figures, such as ``8*hidden_size//3``: read as Python's grammar, computed by a list of
what is allowed. Nothing else of Python can be reached through them."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from fxmeter.models.errors import ScenarioError

Value: TypeAlias = Any
"""What a field of a config holds: a number, a word, a list of them, None."""

LONGEST = 200
"""Characters of an expression; more would nest deeper than Python recurses."""
MOST_BITS = 256
"""Of a whole number on the way: far above any count, far below what takes time."""

_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min, "max": max, "abs": abs, "round": round, "ceil": math.ceil, "floor": math.floor
}  # fmt: skip
_WORDS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that was read; :func:`expression` makes one."""

    text: str

    @property
    def names(self) -> frozenset[str]:
        """The fields and figures that it reads; one inside of another as ``text_config.hidden_size``."""
        return frozenset(_names(_tree(self.text)))

    def value(self, known: Mapping[str, Value]) -> Value:
        """What it is where ``known`` has the values of its names. Raises ScenarioError where it has none there."""
        try:
            return _value(_tree(self.text), known)
        except (ArithmeticError, TypeError, ValueError) as error:
            raise ScenarioError(f"{self.text} cannot be computed: {error}") from None


def expression(text: str) -> Expression:
    """Read one. Raises ScenarioError for what is none, or has more in it than arithmetic, comparisons, ``and``, ``or``,
    ``not``, ``a if b else c``, min, max, abs, round, ceil and floor."""
    found = Expression(text.strip())
    _check(_tree(found.text), found.text)
    return found


def read_assignment(text: str) -> tuple[str, str]:
    """ "FIELD=VALUES" as (field, values); a ScenarioError for another text."""
    name, equals, values = text.partition("=")
    if not equals or not all(part.isidentifier() for part in name.strip().split(".")):
        raise ScenarioError(f"{text!r} is not of the form FIELD=VALUE, such as num_hidden_layers=16")
    return name.strip(), values.strip()


@cache
def _tree(text: str) -> ast.expr:
    if len(text) > LONGEST:
        raise ScenarioError(f"{text[:40]}... is longer than the {LONGEST} characters that an expression may have")
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or str(error)
        raise ScenarioError(f"{text!r} is no expression: {reason}") from None


def _check(node: ast.expr, text: str) -> None:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None) | ast.Name():
            return
        case ast.Attribute() if _dotted(node):
            return
        case ast.Call(func=ast.Name(id=name), args=[_, *_], keywords=[]) if name in _FUNCTIONS:
            pass
        case ast.BinOp(op=op) if type(op) in _ARITHMETIC or isinstance(op, ast.Pow):
            pass
        case ast.Compare(ops=ops) if all(type(op) in _COMPARISONS for op in ops):
            pass
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Not()) | ast.BoolOp() | ast.IfExp():
            pass
        case _:
            raise ScenarioError(
                f"{ast.unparse(node)!r} in {text!r} is not allowed: fields, numbers, arithmetic, comparisons, and, or, "
                f"not, if and {', '.join(_FUNCTIONS)} are"
            )
    for part in _parts(node):
        _check(part, text)


def _parts(node: ast.expr) -> list[ast.expr]:
    of_call = node.args if isinstance(node, ast.Call) else None
    return of_call if of_call is not None else [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.expr)]


def _names(node: ast.expr) -> set[str]:
    name = _dotted(node)
    if name is not None:
        return set() if name in _WORDS else {name}
    return set().union(*map(_names, _parts(node)))


def _dotted(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (inside := _dotted(node.value)):
        return f"{inside}.{node.attr}"
    return None


def _value(node: ast.AST, known: Mapping[str, Value]) -> Value:
    name = _dotted(node)
    if name is not None:
        return _WORDS[name] if name in _WORDS else known[name]
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Call(func=ast.Name(id=function), args=args):
            return _FUNCTIONS[function](*(_number(_value(each, known)) for each in args))
        case ast.BinOp(left=left, op=op, right=right):
            return _computed(op, _number(_value(left, known)), _number(_value(right, known)))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, known)
        case ast.UnaryOp(op=op, operand=operand):
            number = _number(_value(operand, known))
            return -number if isinstance(op, ast.USub) else number
        case ast.IfExp(test=test, body=body, orelse=other):
            return _value(body if _value(test, known) else other, known)
        case ast.BoolOp(op=op, values=values):
            parts = (bool(_value(each, known)) for each in values)
            return all(parts) if isinstance(op, ast.And) else any(parts)
        case ast.Compare(left=left, ops=ops, comparators=others):
            sides = [_value(each, known) for each in (left, *others)]
            return all(_COMPARISONS[type(op)](a, b) for op, a, b in zip(ops, sides, sides[1:], strict=False))
    raise AssertionError(ast.dump(node))


def _number(value: Value) -> Any:
    if not isinstance(value, (int, float)):
        raise TypeError(f"{value!r:.80} is no number")
    return value


def _computed(op: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(op, ast.Pow):
        if abs(right) * max(1, abs(left)).__ceil__().bit_length() > MOST_BITS:
            raise ValueError(f"{left} ** {right} is too large")
        found = left**right
        if isinstance(found, complex):
            raise ValueError(f"{left} ** {right} is no real number")
    else:
        found = _ARITHMETIC[type(op)](left, right)
    if isinstance(found, int) and found.bit_length() > MOST_BITS:
        raise ValueError("the number is too large")
    return found
