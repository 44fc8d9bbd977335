"""What an operator is told of a node: as the model has it, with what may go, without what went.

* A `Site` is what the analysis knows of a node. It answers how channels cross the node.
* A `CutSite` also knows which axes may lose channels. It answers which channels must stay.
* A `PrunedSite` is the node of the pruned model. It answers what the node must state anew (`Edit`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import BoolArray, Kept
from onnxprune.ops.channels import Pins

if TYPE_CHECKING:
    from onnxprune.ops.node import Node

Ints = tuple[int, ...]
Shape = tuple[int, ...]


def _nothing(name: str) -> BoolArray:
    return np.zeros(0, np.bool_)


@dataclass(frozen=True)
class Site:
    """A node with what is known of its tensors at batch 1; None where nothing is.

    `values` holds small tensors known without running the model; `constant[i]` says whether input i
    depends on constants alone. `dynamic(tensor)` says which axes the model leaves open,
    `open(tensor)` which elements of a known value follow such an axis.
    Shapes: `values[i]` is `shapes[i]`, `open(tensor)` that of the tensor.
    """

    node: Node
    shapes: Sequence[Shape | None]
    values: Sequence[npt.NDArray[Any] | None]
    output_shapes: Sequence[Shape | None]
    constant: Sequence[bool] = ()
    dynamic: Callable[[str], tuple[bool, ...]] = field(default=lambda _: ())
    open: Callable[[str], BoolArray] = field(default=_nothing)

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


@dataclass(frozen=True, kw_only=True)
class CutSite(Site):
    """A site after labels have crossed the node.

    `cut[i]` and `output_cut[i]` are the axes along which input and output i may lose channels;
    `counted(tensor)` says which elements of a known value depend on a number of channels.
    Shapes: `counted(tensor)` is that of the tensor.
    """

    cut: Sequence[Collection[int]]
    output_cut: Sequence[Collection[int]]
    counted: Callable[[str], BoolArray] = field(default=_nothing)


@dataclass(frozen=True, kw_only=True)
class PrunedSite(Site):
    """A site in the pruned model: shapes and values are those that are left.

    The output shapes are those that the cuts predict. `before` is the site as it was; `kept[i]` and
    `output_kept[i]` say which positions of input and output i survive.
    """

    before: Site
    kept: Sequence[Kept]
    output_kept: Sequence[Kept]

    @classmethod
    def untouched(cls, site: Site) -> PrunedSite:
        """Return the site of a node that loses nothing."""
        node, whole = site.node, dict[int, BoolArray]()
        kept, output_kept = [whole] * len(node.inputs), [whole] * len(node.outputs)
        return cls(**vars(site), before=site, kept=kept, output_kept=output_kept)


@dataclass(frozen=True)
class Edit:
    """What a restatement changes in a node of the pruned model.

    `attributes` get new values, those of `drop` go; `inputs` get a constant of the node's own,
    which has the element type of the input that it replaces.
    Shapes: `inputs[i]` is what the operator's schema says of input i.
    """

    attributes: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[int, npt.NDArray[Any]] = field(default_factory=dict)
    op_type: str | None = None
    drop: tuple[str, ...] = ()


FROZEN = Pins("which states a number of channels beside sizes known only at run time")


def follows_open(site: Site, *inputs: int) -> list[int]:
    """Return which elements of the inputs, parameters of one length, follow an open axis."""
    names = site.node.inputs
    known = [k for k in inputs if k < len(names) and names[k] and site.values[k] is not None]
    return sorted({int(e) for k in known for e in np.flatnonzero(site.open(names[k]))})


def names_channels(site: CutSite, index: int, elements: Iterable[int]) -> list[int]:
    """Return those of some elements of a known parameter that state a number of channels.

    The others are worked out from channels, and so come out right, or follow an open axis.
    """
    name = site.node.inputs[index]
    moving = np.ravel(site.counted(name) | site.open(name))
    return [k for k in elements if not moving[k]]
