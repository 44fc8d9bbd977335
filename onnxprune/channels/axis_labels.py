"""Labels at a node whose operator has an `Axes` pattern, such as `N i *, o i * -> N o *`.

Each lower-case letter of the pattern has one label for each of its positions. The labels of every
input axis that has this letter are tied to them, and every output axis that has it gets them.
"""

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
    """One axis of an input: its letters, its size and its labels (None if all of them are KEPT)."""

    tensor: str
    axis: Axis
    size: int
    labels: IntArray | None


@dataclass
class Letters:
    """The labels of the lower-case letters of one pattern.

    A composite axis, such as `(G o)`, repeats or tiles the labels of its letter. The exception is a
    *loose* letter, which stands in one composite axis only, such as the o of a grouped convolution:
    each position of that axis has its own label, and `balances` says that each of the G groups must
    lose equally many.

    An *idle* letter, such as that of the batch in most places, has no labels in any input, and none
    in an output.
    """

    labels: Labels
    loose: frozenset[str] = frozenset()
    idle: frozenset[str] = frozenset()
    sizes: dict[str, int] = field(default_factory=dict)
    held: dict[str, IntArray] = field(default_factory=dict)

    def measure(self, axes: Iterable[tuple[Axis, int]]) -> None:
        """Find the size of each letter. In a composite axis, at most one may be unknown."""
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
        """Tie the labels of an input axis to those of its letter. Shapes: given `[size(axis)]`."""
        letter = axis.letter
        if letter in self.loose:
            self.labels.unite(self._own(axis), given, reason)
            return
        rows = given.reshape([self.sizes[name] for name in axis.names])
        rows = np.moveaxis(rows, axis.names.index(letter), 0).reshape(self.sizes[letter], -1)
        own = np.repeat(self._own(axis), rows.shape[1])
        self.labels.unite(own, rows.ravel(), reason)

    def size(self, axis: Axis) -> int:
        """Return the length that the letters of an axis give it."""
        return math.prod(self.sizes.get(name, 1) for name in axis.names)

    def fits(self, axis: Axis, size: int) -> bool:
        """Return True if a size agrees with the letters of an axis; size 1 always does."""
        return size == 1 or not axis.names or size == self.size(axis)

    def places(self, axis: Axis) -> bool:
        """Return True if an output axis has labels. A capital has labels only if an input has."""
        if axis.fixed:
            return len(axis.names) == 1 and axis.letter in self.held
        return axis.letter not in self.idle

    def spread(self, axis: Axis) -> IntArray:
        """Return the labels of an output axis. Shapes: `[size(axis)]`."""
        letter, own = axis.letter, self._own(axis)
        if letter in self.loose:
            return own
        shape = [self.sizes[name] for name in axis.names]
        place = [-1 if name == letter else 1 for name in axis.names]
        return np.broadcast_to(own.reshape(place), shape).ravel()

    def balances(self, reason: Reason) -> list[Balance]:
        """Return labels `[groups, n]` of each loose letter: all rows must lose equally many."""
        return [
            (held.reshape(-1, self.sizes[letter]), reason)
            for letter, held in self.held.items()
            if letter in self.loose and held.size > self.sizes[letter]
        ]

    def _own(self, axis: Axis) -> IntArray:
        """Return the labels of the letter of an axis, fresh ones at first."""
        letter = axis.letter
        if letter not in self.held:
            size = self.size(axis) if letter in self.loose else self.sizes[letter]
            self.held[letter] = self.labels.fresh(size)
        return self.held[letter]


def idle_letters(first: Operand, read: Iterable[InputAxis]) -> frozenset[str]:
    """Return the letters of the first input for which no input has labels."""
    heard = {axis.letter for _, axis, _, labels in read if axis.names and labels is not None}
    mine = {axis.letter for axis in first.axes if axis.names and not axis.fixed}
    return frozenset(mine - heard)


def loose_letters(operands: Iterable[Operand]) -> frozenset[str]:
    """Return the letters whose only form is that of o in `(G o)`: behind a capital, in one axis."""
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
