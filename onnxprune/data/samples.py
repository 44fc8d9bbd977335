"""Data: samples in the form that a model takes, with what they are judged by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import IntArray
from onnxprune.checks import Names, Object, kind_of
from onnxprune.data.heads import Head
from onnxprune.data.inputs import Inputs, Samples, by_name
from onnxprune.data.label_maps import fit_labels
from onnxprune.data.streamed import Streamed
from onnxprune.engine import Portable
from onnxprune.errors import DataError

CLASSES = Names(of="the names of the classes")

ALL = ("all",)
"""The class of samples that have none."""


@dataclass(frozen=True, eq=False)
class Data(Portable):
    """Samples as the model takes them; `classes[k]` names label k.

    Labels are class numbers. `targets` are given in their place to a metric of one's own, where
    they are anything else. Samples that are not `labelled` have 0 for a label, or the class that
    the unpruned model gives them. `preprocess` is the preset that scaled the pixels of files, empty
    where it was none. `generated` says what they are made of, where nobody gave them. `heads` says
    what the outputs hold, where that is known; without them the first output is class scores.
    `reference` are the outputs of the unpruned model, by the tensor of a head. `names` are those of
    the samples' files, where they come from files. `detector` reads boxes off the outputs, where
    the targets are the objects of images (`onnxprune.detection`). `units` takes outputs and says
    by what to multiply a change of each number, where more than their deviation is known. `reads`
    are the outputs that a metric gets, where these are not all, or the first.

    Shapes: x `[n, ...]`, `x[i]` is one sample; y `[n]`, or maps `[n, H, W]`, 255 not counting;
    targets `[n, ...]`.
    Raises: DataError, when they are no such arrays or do not pair up.
    """

    x: Samples
    y: IntArray
    classes: tuple[str, ...]
    preprocess: str = ""
    targets: npt.NDArray[Any] | None = None
    labelled: bool = True
    generated: str = ""
    heads: tuple[Head, ...] = ()
    reference: Mapping[str, npt.NDArray[Any]] | None = None
    names: tuple[str, ...] = ()
    detector: Callable[..., Any] | None = None
    units: Callable[..., Mapping[str, npt.NDArray[Any]]] | None = None
    reads: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        inputs = self.x.arrays if isinstance(self.x, Inputs) else {"x": self.x}
        given = [(name, array, "iufb") for name, array in inputs.items()]
        for name, array, kinds in (*given, ("y", self.y, "iu")):
            if not isinstance(array, np.ndarray | Streamed):
                raise DataError(f"samples: {name} is {kind_of(array)}, expected a NumPy array")
            if array.dtype.kind not in kinds:
                expected = "class numbers 0, 1, 2, ..." if name == "y" else "numbers"
                raise DataError(f"samples: {name} is {array.dtype}, expected {expected}")
        object.__setattr__(self, "classes", CLASSES("classes", self.classes))
        shapes = {name: list(array.shape) for name, array in inputs.items()}
        if self.y.ndim not in (1, 3) or any(s[:1] != [len(self.y)] for s in shapes.values()):
            found = ", ".join(f"{name} is {shape}" for name, shape in shapes.items())
            raise DataError(
                f"samples: {found} and y is {list(self.y.shape)}, expected one "
                "label or label map [H, W] per sample; y holds class numbers, not one-hot rows"
            )
        if self.targets is not None and len(self.targets) != len(self.y):
            raise DataError(
                f"samples: {len(self.targets)} targets for {len(self.y)} samples, expected one for "
                "each"
            )

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, chosen: Any) -> Data:
        """Return some of the samples. Shapes: chosen, a slice, numbers or a mask `[n]`."""
        targets = None if self.targets is None else self.targets[chosen]
        held = self.reference and {name: rows[chosen] for name, rows in self.reference.items()}
        y, names = self.y[chosen], tuple(np.array(self.names, object)[chosen]) if self.names else ()
        x = self.x[chosen]
        return replace(self, x=x, y=y, targets=targets, reference=held, names=names)

    def batches(self, size: int) -> Iterator[tuple[Samples, IntArray]]:
        """Yield views of at most `size` samples, in order; one by one where they are `apart`.

        What is streamed stays unread.

        Shapes: x `[size, ...]`, y `[size]` or `[size, H, W]`; the last batch may be shorter.
        """
        size = 1 if isinstance(self.x, Inputs) and self.x.apart else size
        for start in range(0, len(self), size):
            yield self.x[start : start + size], self.y[start : start + size]

    def soon(self, rows: Any) -> None:
        """Begin to read some of the samples, where they are streamed.

        Shapes: rows, a slice, numbers or a mask `[n]`.
        """
        for array in by_name(self.x, "").arrays.values():
            if isinstance(array, Streamed):
                array.soon(rows)

    def every(self, step: int, first: int = 0) -> Data:
        """Return every `step`-th sample, from the `first` on."""
        return self.rows(slice(first, None, step))

    def fitted(self, output: Sequence[int]) -> Data:
        """Return the same samples with label maps of an output's height and width.

        Shapes: `output` is `[n, K, H, W]` or `[n, H, W, K]`.
        """
        return replace(self, y=fit_labels(self.y, output))


def part_of(y: IntArray, step: int, first: int = 0) -> IntArray:
    """Return the numbers of every `step`-th sample, counted class by class, from the `first` on.

    So each class has its share, in whatever order the samples come. Label maps are one class.
    Shapes: y `[n]` or maps `[n, H, W]` -> `[m]`, in order.

    >>> part_of(np.array([0, 1, 0, 1, 0, 1]), 2).tolist()
    [0, 3, 4]
    """
    order = np.argsort(y, kind="stable") if y.ndim == 1 else np.arange(len(y))
    return np.sort(order[first::step])


DATA = Object(kind=Data, how="as load_data returns it")
"""The rule of an argument that is samples in the form of the model."""
