"""Operators that mix the positions of an axis: exact while it is whole, inexact on request."""

from __future__ import annotations

from collections.abc import Iterable

from onnxprune.ops._op import Axes
from onnxprune.pattern import letters


def mixed(rank: int, axes: Iterable[int], why: str) -> Axes:
    """Return how channels cross an operator that mixes the positions of `axes` of its input.

    >>> mixed(3, [1], "").pattern, mixed(3, [1], "").loose
    ('a B c -> a B c', 'a b c -> a b c')
    """
    exact, loose = letters(rank, axes), letters(rank, ())
    return Axes(f"{exact} -> {exact}", why, f"{loose} -> {loose}")
