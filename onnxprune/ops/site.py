"""What an operator sees of its place in the graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.ops.channels import Pins
from onnxprune.ops.node import Node

Ints = tuple[int, ...]


Shape = tuple[int, ...]


NONE_OF = np.zeros(0, np.bool_)


@dataclass(frozen=True)
class Site:
    """A node with what the analysis knows of its tensors; what descriptions and restatements see.

    Shapes are those at batch 1. `values` holds small tensors known without running the model.
    During surgery, shapes and values are those of the pruned graph and `before` is the site as it
    was; `kept[i][axis]` says which positions of input i survive, a boolean array `[size]`, for
    every axis that loses some; `predicted` are the output shapes that the cuts predict.

    `dynamic(tensor)` says which axes the model leaves open, `open(tensor)` which elements of a
    known value follow such an axis, and `counted(tensor)` which depend on a number of channels;
    `cut[i]` are the axes along which input i may lose channels, known while channels are found, and
    `output_cut[i]` those of output i, when the operator is asked again after the labels crossed it.
    """

    node: Node
    shapes: Sequence[Shape | None]
    values: Sequence[npt.NDArray[Any] | None]
    output_shapes: Sequence[Shape | None]
    constant: Sequence[bool] = ()
    before: Site | None = None
    kept: Sequence[Mapping[int, npt.NDArray[np.bool_]]] = ()
    output_kept: Sequence[Mapping[int, npt.NDArray[np.bool_]]] = ()
    predicted: Sequence[Shape | None] = ()
    dynamic: Callable[[str], tuple[bool, ...]] = field(default=lambda _: ())
    open: Callable[[str], npt.NDArray[np.bool_]] = field(default=lambda _: NONE_OF)
    counted: Callable[[str], npt.NDArray[np.bool_]] = field(default=lambda _: NONE_OF)
    cut: Sequence[Collection[int]] = ()
    output_cut: Sequence[Collection[int]] = ()

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute's value, or `default` where the node does not give it."""
        return self.node.attributes.get(name, default)

    def rank(self, index: int = 0) -> int:
        """Return the rank of an input."""
        shape = self.shapes[index]
        return 0 if shape is None else len(shape)

    def ints(self, index: int) -> Ints | None:
        """Return the known integers of an input, or None."""
        value = self.values[index] if index < len(self.values) else None
        return None if value is None else tuple(int(v) for v in np.ravel(value))


@dataclass(frozen=True)
class Edit:
    """What a restatement changes: attributes, and inputs that get a constant of their own."""

    attributes: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[int, npt.NDArray[Any]] = field(default_factory=dict)
    op_type: str | None = None
    drop: tuple[str, ...] = ()


FROZEN = Pins("which names channels beside sizes that are only known at run time")


def follows_open(site: Site, *inputs: int) -> list[int]:
    """Return which elements of the inputs, parameters of one length, follow an open axis."""
    names = site.node.inputs
    known = [k for k in inputs if k < len(names) and names[k] and site.values[k] is not None]
    return sorted({int(e) for k in known for e in np.flatnonzero(site.open(names[k]))})


def names_channels(site: Site, index: int, elements: Iterable[int]) -> list[int]:
    """Return those of some elements of a known parameter that state a number of channels.

    The others are worked out from channels, and so come out right, or follow an open axis.
    """
    name = site.node.inputs[index]
    moving = np.ravel(site.counted(name) | site.open(name))
    return [k for k in elements if not moving[k]]
