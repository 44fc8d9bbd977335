"""The notation of `Axes`: which letter names which axis of which operand.

>>> inputs, outputs = parse("N (G i) *, (G o) i * -> N (G o) *")
>>> [(axis.names, size) for axis, size in inputs[0].match((1, 8, 7, 7), "x")]
[(('N',), 1), (('G', 'i'), 8), ((), 7), ((), 7)]
>>> outputs[0].axes[1].letter
'o'
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from onnxprune.errors import InvalidOp

TOKEN = re.compile(r"\(([\w ]+)\)|(\w+)|(\*)")
REST = "*"


@dataclass(frozen=True)
class Axis:
    """The letters of one axis, outermost first; none where `*` stands for the axis."""

    names: tuple[str, ...]

    @cached_property
    def fixed(self) -> bool:
        """Whether the axis never shrinks."""
        return not any(name.islower() for name in self.names) and self.names != ("1",)

    @cached_property
    def letter(self) -> str:
        """The lower-case letter along which the axis may shrink, or else its first letter."""
        return next((name for name in self.names if name.islower()), self.names[0])


@dataclass(frozen=True)
class Operand:
    """The axes of one operand; at most one of them is the rest, `*`."""

    axes: tuple[Axis, ...]
    rest: int | None

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether a shape has as many axes as are named."""
        named = len(self.axes)
        return len(shape) == named if self.rest is None else len(shape) >= named

    def match(self, shape: Sequence[int], where: str) -> list[tuple[Axis, int]]:
        """Pair each axis of a shape with its letters.

        Raises: InvalidOp when the ranks do not agree.
        """
        axes = list(self.axes)
        if self.rest is not None:
            extra = len(shape) - len(axes)
            axes[self.rest : self.rest] = [Axis(())] * extra
        if len(axes) != len(shape):
            raise InvalidOp(f"{where} has rank {len(shape)}; its pattern names {len(axes)} axes")
        return list(zip(axes, shape, strict=True))


@lru_cache(maxsize=512)
def parse(pattern: str) -> tuple[tuple[Operand, ...], tuple[Operand, ...]]:
    """Return the operands left and right of the arrow.

    Raises: InvalidOp when the pattern has no arrow, or two rests in one operand.
    """
    left, arrow, right = pattern.partition("->")
    if not arrow:
        raise InvalidOp(f"pattern {pattern!r} has no '->'")
    return tuple(map(_operand, left.split(","))), tuple(map(_operand, right.split(",")))


def _operand(text: str) -> Operand:
    axes: list[Axis] = []
    rest = None
    for composite, single, star in TOKEN.findall(text):
        if star:
            if rest is not None:
                raise InvalidOp(f"operand {text.strip()!r} has two rests")
            rest = len(axes)
        else:
            axes.append(Axis(tuple(composite.split()) if composite else (single,)))
    return Operand(tuple(axes), rest)


def letters(rank: int, fixed: Iterable[int]) -> str:
    """Name the axes of one operand, with capitals for those that never shrink.

    >>> letters(4, [1])
    'a B c d'
    """
    capital = set(fixed)
    names = "abcdefghijklmnop"[:rank]
    return " ".join(n.upper() if k in capital else n for k, n in enumerate(names))


def other_letters(rank: int, axes: Collection[int]) -> str:
    """The letters of an operand whose `axes` have sizes of their own, and so letters of their own.

    >>> letters(3, [1]), other_letters(3, [1])
    ('a B c', 'a R c')
    """
    names = letters(rank, ()).split()
    return " ".join("QRSTUVWXYZ"[k] if k in axes else name for k, name in enumerate(names))
