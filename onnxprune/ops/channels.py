"""How channels cross an operator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from onnxprune.arrays import IntArray
from onnxprune.ops.pattern import letters


@dataclass(frozen=True)
class Moves:
    """Copies elements; an output may lose positions `along` these axes (None: along any axis)."""

    along: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Aligns:
    """Broadcasts its inputs against each other."""


@dataclass(frozen=True)
class Shapes:
    """Reads shapes, not elements."""


@dataclass(frozen=True)
class Holds:
    """Holds a constant in its attribute `value`."""


@dataclass(frozen=True)
class Fills:
    """Writes one value everywhere; without an attribute `value`, 0.0."""


@dataclass(frozen=True)
class Writes:
    """Copies input 0 and writes input 2 over it, or combines both there.

    `places[axis]` is the position on that axis of input 0 which each element of input 2 goes to.
    Input 1 states them on the axes `named`, along its first `rows` axes.
    Shapes: each broadcasts to input 2.
    """

    places: tuple[IntArray, ...]
    named: frozenset[int] = frozenset()
    rows: int = 0


@dataclass(frozen=True)
class Pins:
    """Keeps every channel that the node reads; `why` completes "feeds Softmax 'prob', "."""

    why: str


@dataclass(frozen=True)
class Axes:
    """Relates named axes: `"n i *, o i *, o -> n o *"`.

    `why` says why axes with a capital letter stay whole. `loose` is the pattern for users who allow
    this operator to be pruned inexactly, `inner` that for users who ask for the inner widths of
    attention, which a product of two activations sums over. `sizes` gives those of letters that
    follow from no shape.
    """

    pattern: str
    why: str = "which needs all of these channels"
    loose: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    inner: str = ""

    def pattern_for(self, *, loose: bool, inner: bool) -> str:
        """Return the pattern for users who allow what it is named for."""
        return (loose and self.loose) or (inner and self.inner) or self.pattern


MOVES, ALIGNS, SHAPES, HOLDS, FILLS = Moves(), Aligns(), Shapes(), Holds(), Fills()

How = Moves | Aligns | Axes | Writes | Shapes | Holds | Fills | Pins


def mixed(rank: int, axes: Iterable[int], why: str) -> Axes:
    """Return how channels cross an operator that mixes the positions of `axes` of its input.

    >>> mixed(3, [1], "").pattern, mixed(3, [1], "").loose
    ('a B c -> a B c', 'a b c -> a b c')
    """
    exact, loose = letters(rank, axes), letters(rank, ())
    return Axes(f"{exact} -> {exact}", why, f"{loose} -> {loose}")
