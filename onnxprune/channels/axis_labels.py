"""The labels of the letters of one `Axes` pattern, at one node."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from onnxprune.arrays import IntArray
from onnxprune.channels.labels import Balance, Labels, Reason
from onnxprune.ops import Axis, Operand


class InputAxis(NamedTuple):
    """One axis of an input: its letters, its size and its labels, None where all are KEPT."""

    tensor: str
    axis: Axis
    size: int
    labels: IntArray | None


@dataclass
class Letters:
    """The labels of the lower-case letters of one pattern; composite axes repeat or tile them.

    A letter that is `loose` stands in one composite axis only, as the o of `(G o)`: its positions
    have labels of their own, of which each of the G groups loses equally many (`balances`).
    """

    labels: Labels
    loose: frozenset[str] = frozenset()
    sizes: dict[str, int] = field(default_factory=dict)
    held: dict[str, IntArray] = field(default_factory=dict)

    def measure(self, axes: Iterable[tuple[Axis, int]]) -> None:
        """Work out the size of every letter; a composite axis has at most one unknown."""
        later = []
        for axis, size in axes:
            if len(axis.names) == 1:
                self.sizes[axis.names[0]] = max(size, self.sizes.get(axis.names[0], 1))
            elif axis.names:
                later.append((axis, size))
        for axis, size in later:
            known = [n for n in axis.names if n in self.sizes]
            for name in axis.names:
                if name not in self.sizes:
                    self.sizes[name] = size // int(np.prod([self.sizes[n] for n in known]))

    def tie(self, axis: Axis, given: IntArray, reason: Reason) -> None:
        """Tie an operand's labels to the letter of the axis."""
        letter = axis.letter
        if letter in self.loose:
            self.labels.unite(self._own(axis), given, reason)
            return
        rows = given.reshape([self.sizes[name] for name in axis.names])
        rows = np.moveaxis(rows, axis.names.index(letter), 0).reshape(self.sizes[letter], -1)
        own = np.repeat(self._own(axis), rows.shape[1])
        self.labels.unite(own, rows.ravel(), reason)

    def size(self, axis: Axis) -> int:
        """Return how many positions an axis has by its letters."""
        return math.prod(self.sizes.get(name, 1) for name in axis.names)

    def fits(self, axis: Axis, size: int) -> bool:
        """Say whether an axis is as long as its letters are; an axis of 1 always is."""
        return size == 1 or not axis.names or size == self.size(axis)

    def places(self, axis: Axis) -> bool:
        """Say whether an output axis has labels; a fixed one keeps those of an input."""
        if axis.fixed:
            return len(axis.names) == 1 and axis.letter in self.held
        return True

    def spread(self, axis: Axis) -> IntArray:
        """Return the labels of an output axis."""
        letter, own = axis.letter, self._own(axis)
        if letter in self.loose:
            return own
        shape = [self.sizes[name] for name in axis.names]
        place = [-1 if name == letter else 1 for name in axis.names]
        return np.broadcast_to(own.reshape(place), shape).ravel()

    def balances(self, reason: Reason) -> list[Balance]:
        """Return the labels of which groups must lose equally many."""
        return [
            (held.reshape(-1, self.sizes[letter]), reason)
            for letter, held in self.held.items()
            if letter in self.loose and held.size > self.sizes[letter]
        ]

    def _own(self, axis: Axis) -> IntArray:
        letter = axis.letter
        if letter not in self.held:
            size = self.size(axis) if letter in self.loose else self.sizes[letter]
            self.held[letter] = self.labels.fresh(size)
        return self.held[letter]


def loose_letters(operands: Iterable[Operand]) -> frozenset[str]:
    """Return the letters that only ever stand behind the same capital, in one composite axis."""
    forms: dict[str, set[tuple[str, ...]]] = {}
    for operand in operands:
        for axis in operand.axes:
            for name in axis.names:
                forms.setdefault(name, set()).add(axis.names)
    return frozenset(
        letter
        for letter, (names, *others) in forms.items()
        if not others and len(names) == 2 and names[0].isupper() and names[1] == letter.lower()
    )
