"""Choices: which channels may still go, and how many of a group at once.

A search keeps them, and what orders channels asks them.
"""

from __future__ import annotations

from typing import Protocol

from onnxprune.arrays import BoolArray, IntArray


class Choices(Protocol):
    """Which channels may go. Those of a group go in blocks."""

    @property
    def group(self) -> IntArray:
        """The group of each channel. Shapes: `[channels]`."""
        ...

    def free(self) -> BoolArray:
        """Return which channels may still go. Shapes: `[channels]`."""
        ...

    def blocks(self) -> IntArray:
        """Return how many of each channel's group have to go at once. Shapes: `[channels]`."""
        ...

    def take(self, channel: int) -> None:
        """Hear that a channel goes."""
        ...
