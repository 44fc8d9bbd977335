"""A node that contradicts its operator: one error for all that can be wrong with it.

What an operator says of a node is worked out from shapes, values and attributes that a file states.
They may contradict each other in ways without end, so the functions of operators do not look for
each: what they stumble over is turned into one error here, which names the node.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from onnxprune.arrays import dims
from onnxprune.errors import InvalidModel, OnnxPruneError

if TYPE_CHECKING:
    from onnxprune.ops.node import Node

OFTEN_OURS = (AttributeError, KeyError, RuntimeError, StopIteration, TypeError)
"""What a mistake of this package raises as often as a broken model does."""

STUMBLES = (
    *(ArithmeticError, AssertionError, IndexError, MemoryError, ValueError),
    *(() if os.environ.get("ONNXPRUNE_STRICT") else OFTEN_OURS),
)
"""What is raised on a node that contradicts itself. The tests of this package let mistakes pass
(`ONNXPRUNE_STRICT`), those of broken models do not."""

MOST_NAMED = 4
"""Inputs of a node that a message names."""


class Misfit(InvalidModel):
    """A node whose inputs and attributes do not fit together; `why` says it without the node."""

    def __init__(self, text: str, why: str = "", node: Node | None = None) -> None:
        super().__init__(text)
        self.why, self.node = why or text, node


def misfit(node: Node, shapes: Sequence[Sequence[int] | None], error: Exception) -> Misfit:
    """Return the error of a node that does not fit what it reads, whose shapes are given."""
    known = [
        f"'{name}' {dims(shape)}"
        for name, shape in zip(node.inputs, shapes, strict=False)
        if name and shape is not None
    ]
    more = f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else ""
    read = f", {', '.join(known[:MOST_NAMED])}{more}" if known else ""
    why = error.why if isinstance(error, Misfit) else str(error) or type(error).__name__
    text = f"{node}: does not fit what it reads{read} ({why}); export the model again"
    return Misfit(text, why, node)


@contextmanager
def fitting(node: Node, shapes: Sequence[Sequence[int] | None]) -> Iterator[None]:
    """Turn what an operator stumbles over at a node into one error.

    Raises: Misfit naming the node and what it reads.
    """
    try:
        yield
    except OnnxPruneError:
        raise
    except STUMBLES as error:
        raise misfit(node, shapes, error) from error
