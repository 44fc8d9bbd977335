"""A condition on the figures of a comparison, such as `harmonic_drop > 0.01 or latency_ratio > 1`.

It is a small part of Python's expressions: named figures, numbers, `+ - * /`, comparisons, `and`,
`or`, `not` and parentheses. `1%` is 0.01. Nothing else is read, and nothing is called.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from onnxprune.errors import DataError, InvalidValue, check_name

AMOUNTS = {
    "params": "params",
    "macs": "macs",
    "filters": "filters",
    "size": "size_bytes",
    "latency": "latency_ms",
}
"""Names of amounts, and the keys under which a comparison holds them."""

SCORES = ("harmonic", "mean")

Figures = Mapping[str, float | None]
Number = Callable[[Figures], float]
Test = Callable[[Figures], bool]

ARITHMETIC: Mapping[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
COMPARISONS: Mapping[type[ast.AST], Callable[[float, float], bool]] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}

LONGEST = 500
"""Characters of a condition: nobody reads more, and Python's parser is recursive."""

PERCENT = re.compile(r"(?<![\w.])(\d+\.?\d*|\.\d+)\s*%")


def figures(comparison: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the figures of a comparison by name; None is one that is not known.

    Units: sizes in bytes, latencies in ms, scores and agreement from 0 to 1; a ratio is after /
    before, a drop before - after.
    """
    sides = comparison.get("before") or {}, comparison.get("after") or {}
    found: dict[str, float | None] = {}
    for name, key in AMOUNTS.items():
        one, other = (side.get(key) for side in sides)
        found |= {f"{name}_before": one, f"{name}_after": other}
        found[f"{name}_ratio"] = other / one if one and other is not None else None
    scores = [side.get("accuracy") or {} for side in sides]
    for name in SCORES:
        one, other = (side.get(name) for side in scores)
        found |= {f"{name}_before": one, f"{name}_after": other}
        found[f"{name}_drop"] = None if one is None or other is None else one - other
    classes = [(side.get("per_class") or {}).values() for side in scores]
    seen = [pair for pair in zip(*classes, strict=True) if None not in pair]
    found["worst_class_after"] = min((other for _, other in seen), default=None)
    found["worst_class_drop"] = max((one - other for one, other in seen), default=None)
    return found | {name: comparison.get(name) for name in ("agreement", "samples")}


NAMES = tuple(figures({}))
"""The figures that a condition may name."""
KNOWN = ", ".join(NAMES)


class Condition:
    """A condition, read before anything is measured.

    >>> condition = Condition("harmonic_drop > 1% or latency_ratio > 1")
    >>> condition.reasons({"harmonic_drop": 0.002, "latency_ratio": 1.0835})
    ['latency_ratio > 1 (latency_ratio is 1.0835)']

    Raises: InvalidValue for a text that is no condition; UnknownName for an unknown figure; later
    DataError where a figure is not known.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        root = _parse(text)
        self._tests = [(one, _test(one)) for one in _alternatives(root)]
        if not _names(root):
            raise InvalidValue(f"condition {text!r}: names no figure; expected one of {KNOWN}")

    def __str__(self) -> str:
        return self.text

    def reasons(self, found: Figures) -> list[str]:
        """Return each alternative of the condition that holds, with the figures that it names.

        Raises: DataError where a figure is not known, or the condition divides by 0.
        """
        return [_reason(one, found) for one, holds in self._tests if holds(found)]


def _parse(text: str) -> ast.expr:
    """The expression of a text, in which shares in percent are numbers."""
    if len(text) > LONGEST:
        raise InvalidValue(f"condition: has {len(text)} characters; expected {LONGEST} at most")
    plain = PERCENT.sub(lambda share: repr(float(share[1]) / 100), text.strip())
    try:
        with warnings.catch_warnings(action="ignore"):  # as of `1or 2`
            return ast.parse(plain, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidValue(
            f"condition {text!r}: cannot be read; expected comparisons of figures, as in "
            "harmonic_drop > 0.01 or latency_ratio > 1"
        ) from error


def _alternatives(node: ast.expr) -> Iterator[ast.expr]:
    """What an outermost `or` joins."""
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
        for one in node.values:
            yield from _alternatives(one)
    else:
        yield node


def _test(node: ast.expr) -> Test:
    """What an expression says of figures; refused where it is neither true nor false."""
    match node:
        case ast.BoolOp():
            joined = any if isinstance(node.op, ast.Or) else all
            parts = [_test(one) for one in node.values]
            return lambda found: joined([part(found) for part in parts])
        case ast.UnaryOp(op=ast.Not()):
            inner = _test(node.operand)
            return lambda found: not inner(found)
        case ast.Compare() if all(type(op) in COMPARISONS for op in node.ops):
            sides = [_number(side) for side in (node.left, *node.comparators)]
            kinds = [COMPARISONS[type(op)] for op in node.ops]
            return lambda found: all(
                compare(one, other)
                for compare, (one, other) in zip(
                    kinds, pairwise([side(found) for side in sides]), strict=True
                )
            )
    raise InvalidValue(
        f"condition: '{ast.unparse(node)}' is no comparison; expected > >= < <= == or != between "
        "figures, or several of these joined by and, or, not"
    )


def _number(node: ast.expr) -> Number:
    """The value of an expression; refused where it is no number."""
    match node:
        case ast.Name():
            check_name("figure", node.id, NAMES)
            return lambda found: _known(node.id, found)
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            if abs(value) <= sys.float_info.max:
                return lambda found: float(value)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            inner, sign = _number(node.operand), -1 if isinstance(node.op, ast.USub) else 1
            return lambda found: sign * inner(found)
        case ast.BinOp() if type(node.op) in ARITHMETIC:
            one, other = _number(node.left), _number(node.right)
            return lambda found: _calculated(node, one(found), other(found))
    raise InvalidValue(
        f"condition: '{ast.unparse(node)}' is no number; expected one of {KNOWN}, a number, or "
        "several of these joined by + - * /"
    )


def _known(name: str, found: Figures) -> float:
    value = found.get(name)
    if value is None or math.isnan(value):
        raise DataError(f"condition: {name} is not known here; leave it out of the condition")
    return float(value)


def _calculated(node: ast.BinOp, one: float, other: float) -> float:
    if isinstance(node.op, ast.Div) and other == 0:
        raise DataError(f"condition: '{ast.unparse(node.right)}' is 0 in {ast.unparse(node)}")
    return ARITHMETIC[type(node.op)](one, other)


def _reason(node: ast.expr, found: Figures) -> str:
    said = " and ".join(f"{name} is {found[name]:.5g}" for name in _names(node))
    return f"{ast.unparse(node)} ({said})" if said else ast.unparse(node)


def _names(node: ast.expr) -> list[str]:
    """The figures that an expression names, in the order of their first place."""
    found = [one for one in ast.walk(node) if isinstance(one, ast.Name)]
    found.sort(key=lambda one: (one.lineno, one.col_offset))
    return list(dict.fromkeys(one.id for one in found))
