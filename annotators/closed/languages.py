"""Arranged formulas in four languages: for a screen, for LaTeX, for Python, for sympy."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from fxmeter.annotators.closed.arrange import Call, Node, Number, Operation, Symbol, Writing
from fxmeter.annotators.closed.cases import Box, Ranges, sides
from fxmeter.annotators.sheets.region import Interval
from fxmeter.annotators.symbolic import Guard

SUM, PRODUCT, POWER, ATOM = range(1, 5)
_BINDING = {"+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT, "//": PRODUCT, "**": POWER}
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Language:
    """How each part is written. ``power``, ``floor``, ``quotient`` take the two sides as text, already in brackets
    where they need them; ``largest`` and ``smallest`` a list."""

    number: Callable[[int | float], str]
    symbol: Callable[[str], str]
    times: str
    bracket: Callable[[str], str]
    power: Callable[[str, str], str]
    floor: Callable[[str, str], str]
    quotient: Callable[[str, str], str]
    rounded: Callable[[str], str]
    largest: Callable[[Sequence[str]], str]
    smallest: Callable[[Sequence[str]], str]
    compare: Callable[[str, str, str], str]
    between: Callable[[str, str, str], str]
    every: Callable[[Sequence[str]], str]
    either: Callable[[Sequence[str]], str]
    bare: bool
    """Whether sides of powers, floors and quotients are grouped by the writing itself, as a fraction does."""
    exact_order: bool
    """Whether products of products keep their order: floats round differently in another one."""

    def write(self, node: Node, binding: int = 0) -> str:
        """A formula as text, in brackets where what is around it binds as tightly as ``binding`` or tighter."""
        if isinstance(node, Number):
            return self.number(node.value)
        if isinstance(node, Symbol):
            return self.symbol(node.name)
        if isinstance(node, Call):
            parts = [self.write(part) for part in node.parts]
            if node.name == "round":
                return self.rounded(parts[0])
            return self.largest(parts) if node.name == "max" else self.smallest(parts)
        text = self._operation(node)
        return self.bracket(text) if binding > _BINDING[node.op] else text

    def _operation(self, node: Operation) -> str:
        if node.op in ("+", "-"):
            first, *others = node.parts
            return self.write(first, PRODUCT) + "".join(self._added(node.op, part) for part in others)
        if node.op == "*":
            parts = node.parts if self.exact_order else _flat(node)
            return self.times.join(self.write(part, POWER) for part in parts)
        left, right = node.parts
        binding = 0 if self.bare else ATOM
        if node.op == "**":
            return self.power(self.write(left, ATOM), self.write(right, binding))
        of_two = self.floor if node.op == "//" else self.quotient
        return of_two(self.write(left, binding), self.write(right, binding))

    def _added(self, op: str, part: Node) -> str:
        if op == "+" and isinstance(part, Number) and part.value < 0:
            return f" - {self.number(-part.value)}"
        if op == "+" and isinstance(part, Operation) and part.op == "*":
            first = part.parts[0]
            if isinstance(first, Number) and first.value < 0:
                return " - " + self.write(Operation("*", (Number(-first.value), *part.parts[1:])), PRODUCT)
        return f" {op} {self.write(part, PRODUCT)}"

    def condition(self, boxes: Sequence[Box], whole: Sequence[Box], writing: Writing) -> str:
        """When a point lies in one of ``boxes``, as far as the domain ``whole`` does not say it already."""
        said = [self._box(box, whole, writing) for box in _over_all_parts(boxes, whole)]
        return self.either([self._grouped(self.every(parts), len(said) > 1 and len(parts) > 1) for parts in said])

    def _grouped(self, text: str, needed: bool) -> str:
        return self.bracket(text) if needed and not self.bare else text

    def _box(self, box: Box, whole: Sequence[Box], writing: Writing) -> list[str]:
        said = [index for index in range(len(box.axes)) if not _goes_without_saying(index, box, whole)]
        least = [min(part.axes[index][0][0] for part in whole) for index in range(len(box.axes))]
        parts = [self._ranges(self.symbol(writing.names[i]), box.axes[i], least[i]) for i in said]
        return [
            *parts,
            *(self._compared(guard, writing) for guard in sorted(box.rest, key=lambda guard: str(guard.value))),
        ]

    def _compared(self, guard: Guard, writing: Writing) -> str:
        more, less = sides(guard)
        left, right = writing.tree(more), writing.tree(less)
        if isinstance(left, Number):
            turned = {">=": "<="}.get(guard.relation, guard.relation)
            return self.compare(self.write(right), turned, self.write(left))
        return self.compare(self.write(left), guard.relation, self.write(right))

    def _ranges(self, name: str, ranges: Ranges, least: int) -> str:
        holes = _holes(ranges, least)
        if len(ranges) > 1 and ranges[-1][1] is None and all(low == high for low, high in holes):
            return self.every([self.compare(name, "!=", self.number(low)) for low, _ in holes])
        return self._grouped(self.either([self._range(name, part, least) for part in ranges]), len(ranges) > 1)

    def _range(self, name: str, part: Interval, least: int) -> str:
        low, high = part
        if low == high:
            return self.compare(name, "==", self.number(low))
        if high is None:
            return self.compare(name, ">=", self.number(low))
        if low <= least:
            return self.compare(name, "<=", self.number(high))
        return self.between(self.number(low), name, self.number(high))


def _flat(node: Node) -> tuple[Node, ...]:
    """The factors of a product, and of products in it, numbers first."""
    if not isinstance(node, Operation) or node.op != "*":
        return (node,)
    parts = [inner for part in node.parts for inner in _flat(part)]
    return tuple(sorted(parts, key=lambda part: not isinstance(part, Number)))


def _over_all_parts(boxes: Sequence[Box], whole: Sequence[Box]) -> list[Box]:
    """Boxes, with those that differ only in which part of a domain of several parts they have, as one."""
    joined = list(boxes)
    for box in boxes if len(whole) > 1 else ():
        parts = [Box((box.axes[0], *part.axes[1:]), box.rest) for part in whole]
        if all(part in joined for part in parts):
            joined = [other for other in joined if other not in parts]
            joined.append(Box((box.axes[0], _of_all(1, whole), _of_all(2, whole)), box.rest))
    return joined


def _of_all(index: int, whole: Sequence[Box]) -> Ranges:
    """What a size can be in any part of a domain."""
    first, *others = sorted(part.axes[index][0] for part in whole)
    return ((first[0], others[-1][1] if others else first[1]),)


def _goes_without_saying(index: int, box: Box, whole: Sequence[Box]) -> bool:
    """Whether the range of a size follows from the domain, or in a domain of several parts from another size's."""
    ranges = box.axes[index]
    if ranges == _of_all(index, whole):
        return True
    if len(whole) == 1 or index == 0 or ranges != whole[0].axes[index]:
        return False
    other = 3 - index
    return box.axes[other] != whole[0].axes[other] or index == 2


def _holes(ranges: Ranges, least: int) -> list[Interval]:
    """What lies between, and before, ranges."""
    ends = [least - 1, *(high for _, high in ranges if high is not None)]
    return [(end + 1, low - 1) for end, (low, _) in zip(ends, ranges, strict=False) if low > end + 1]


def _fraction(value: float) -> str | None:
    """A float as the simple fraction that it stands for."""
    simple = Fraction(value).limit_denominator(10_000)
    return f"{simple.numerator}/{simple.denominator}" if float(simple) == value and simple.denominator > 1 else None


def _screen_number(value: int | float) -> str:
    if isinstance(value, float):
        simple = _fraction(value)
        return f"({simple})" if simple else f"{int(value):,}" if value.is_integer() else repr(value)
    return f"{value:,}"


def _latex_number(value: int | float) -> str:
    if isinstance(value, float):
        simple = _fraction(value)
        if simple:
            return "\\left(\\frac{{{}}}{{{}}}\\right)".format(*simple.split("/"))
        if not value.is_integer():
            return repr(value)
    return f"{int(value):,}".replace(",", "{,}")


def _sympy_number(value: int | float) -> str:
    if isinstance(value, float) and not value.is_integer():
        simple = _fraction(value)
        return f"Rational({', '.join((simple or '').split('/'))})" if simple else f"Rational('{value!r}')"
    return str(int(value))


def _joined(word: str, one: str) -> Callable[[Sequence[str]], str]:
    return lambda parts: word.join(parts) if parts else one


def _compared(signs: dict[str, str]) -> Callable[[str, str, str], str]:
    return lambda left, relation, right: f"{left} {signs[relation]} {right}"


def _chained(sign: str) -> Callable[[str, str, str], str]:
    return lambda low, name, high: f"{low} {sign} {name} {sign} {high}"


def _sympy_compared(left: str, relation: str, right: str) -> str:
    name = {"==": "Eq", "!=": "Ne", ">=": "Ge", "<=": "Le"}[relation]
    return f"{name}({left}, {right})"


def _named(name: str) -> Callable[[Sequence[str]], str]:
    return lambda parts: "true" if not parts else parts[0] if len(parts) == 1 else f"{name}({', '.join(parts)})"


def _raised(base: str, exponent: str) -> str:
    return base + (exponent.translate(_SUPERSCRIPTS) if exponent.isdigit() else f"^{exponent}")


SCREEN = Language(
    number=_screen_number,
    symbol=str,
    times="·",
    bracket=lambda text: f"({text})",
    power=_raised,
    floor=lambda left, right: f"⌊{left}/{right}⌋",
    quotient=lambda left, right: f"{left}/{right}",
    rounded=lambda text: f"round({text})",
    largest=lambda parts: f"max({', '.join(parts)})",
    smallest=lambda parts: f"min({', '.join(parts)})",
    compare=_compared({"==": "=", "!=": "≠", ">=": "≥", "<=": "≤"}),
    between=_chained("≤"),
    every=_joined(" and ", "always"),
    either=_joined(" or ", "never"),
    bare=False,
    exact_order=False,
)
LATEX = Language(
    number=_latex_number,
    symbol=lambda name: re.sub(r"_(\w+)", r"_{\1}", name),
    times=" \\cdot ",
    bracket=lambda text: f"\\left({text}\\right)",
    power=lambda base, exponent: f"{base}^{{{exponent}}}",
    floor=lambda left, right: f"\\left\\lfloor \\frac{{{left}}}{{{right}}} \\right\\rfloor",
    quotient=lambda left, right: f"\\frac{{{left}}}{{{right}}}",
    rounded=lambda text: f"\\operatorname{{round}}\\left({text}\\right)",
    largest=lambda parts: f"\\max\\left({', '.join(parts)}\\right)",
    smallest=lambda parts: f"\\min\\left({', '.join(parts)}\\right)",
    compare=_compared({"==": "=", "!=": "\\ne", ">=": "\\ge", "<=": "\\le"}),
    between=_chained("\\le"),
    every=_joined(" \\wedge ", "\\top"),
    either=_joined(" \\vee ", "\\bot"),
    bare=True,
    exact_order=False,
)
PYTHON = replace(
    SCREEN,
    number=repr,
    times="*",
    power=lambda base, exponent: f"{base}**{exponent}",
    floor=lambda left, right: f"({left}//{right})",
    quotient=lambda left, right: f"({left}/{right})",
    compare=_compared({sign: sign for sign in ("==", "!=", ">=", "<=")}),
    between=_chained("<="),
    every=_joined(" and ", "True"),
    either=_joined(" or ", "False"),
    exact_order=True,
)
SYMPY = replace(
    PYTHON,
    number=_sympy_number,
    floor=lambda left, right: f"floor({left}/{right})",
    rounded=lambda text: f"floor({text} + Rational(1, 2))",
    largest=lambda parts: f"Max({', '.join(parts)})",
    smallest=lambda parts: f"Min({', '.join(parts)})",
    compare=_sympy_compared,
    between=lambda low, name, high: f"And(Ge({name}, {low}), Le({name}, {high}))",
    every=_named("And"),
    either=_named("Or"),
)


def abbreviated(node: Node, most: int) -> tuple[Node, int]:
    """A maximum of many terms cut to the ``most`` that are the largest far out, and how many that leaves out."""
    if not isinstance(node, (Call, Operation)):
        return node, 0
    short = [abbreviated(part, most) for part in node.parts]
    parts, left_out = tuple(part for part, _ in short), sum(count for _, count in short)
    if isinstance(node, Call) and node.name == "max" and len(parts) > most:
        return Call("max", parts[:most]), left_out + len(parts) - most
    return replace(node, parts=parts), left_out
