"""A model that runs, on whatever runtime: what it takes, and samples in that form."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from onnxprune.arrays import in_pieces, is_finite
from onnxprune.data import Inputs, Rows, Samples, Streamed, by_name
from onnxprune.errors import DataError, InvalidModel


@dataclass(frozen=True)
class Port:
    """An input of a model: its type, and its shape, None where that or an axis is open."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Batch:
    """Samples where a session reads them, by input, and how many they are."""

    values: dict[str, Any]
    size: int


class Net:
    """What an evaluator and a clock ask of a model; each runtime runs it in its own way.

    `batch` is the number of samples that the model fixes, None where it is open.
    Raises: InvalidModel for a model without inputs.
    """

    def __init__(
        self, name: str, ports: Mapping[str, Port], outputs: Sequence[str], place: str = "cpu"
    ) -> None:
        self.name, self.ports, self.outputs, self.place = name, dict(ports), tuple(outputs), place
        if not self.ports:
            raise InvalidModel(f"{name}: has no inputs, expected samples to be its input")
        first = next(iter(self.ports.values()))
        self.batch: int | None = first.shape[0] if first.shape else None

    def run(self, batch: Batch, outputs: Sequence[str] = ()) -> dict[str, npt.NDArray[Any]]:
        """Run one bound batch and return the outputs named, by default the first.

        Shapes: each as the model gives it.
        """
        raise NotImplementedError

    def seconds(self, batch: Batch) -> float:
        """Run one bound batch and return how long that took. Units: s."""
        start = time.perf_counter()
        self.run(batch)
        return time.perf_counter() - start

    def bind(self, batch: Inputs, place: str) -> Batch:
        """Put a batch where the model reads it; here it stays where it is."""
        feeds = {name: np.ascontiguousarray(array) for name, array in batch.feeds.items()}
        return Batch(feeds, len(batch))

    def fitted(self, x: Samples) -> Inputs:
        """Cast samples to the types that the model takes, without a copy where they have them.

        Shapes: each `[n, ...]` -> the same.
        Raises: DataError where a name, a shape or a value does not fit.
        """
        given = by_name(x, next(iter(self.ports)))
        missing = [name for name in self.ports if name not in given.arrays]
        if missing:
            held = ", ".join(given.arrays) if isinstance(x, Inputs) else "one array"
            raise DataError(
                f"{self.name}: takes {', '.join(self.ports)}, the samples are {held}; give every "
                "input by its name"
            )
        arrays = {n: self._cast(p, given.arrays[n], given.apart) for n, p in self.ports.items()}
        return Inputs(arrays, given.apart)

    def _cast(self, port: Port, x: Rows, apart: bool) -> Rows:
        found = x.shape[1:]
        want = found if port.shape is None else port.shape if apart else port.shape[1:]
        pairs = zip(want, found, strict=False)
        if len(want) != len(found) or any(size not in (None, has) for size, has in pairs):
            raise DataError(
                f"{self.name}: takes samples of {list(want)}, these are {list(found)}; "
                "load them in that shape"
            )
        cast = partial(_as, port.dtype, self.name)
        return x.changed(cast, port.dtype) if isinstance(x, Streamed) else cast(x)

    def noise(self, batch_size: int, shape: Sequence[int] | None) -> Inputs:
        """Return a batch of noise for the one input; a fixed batch size is kept.

        Shapes: shape, that of one sample, -> `[b, *shape]`.
        Raises: InvalidModel where an axis is open and no shape is given.
        """
        (port, *others) = self.ports.values()
        if others:
            names = ", ".join(self.ports)
            raise InvalidModel(
                f"{self.name}: has {len(self.ports)} inputs ({names}); pass samples= to time it"
            )
        open_shape = None if port.shape is None else port.shape[1:]
        sizes = open_shape if shape is None else tuple(shape)
        if sizes is None or None in sizes:
            raise InvalidModel(f"{self.name}: input {port.name!r} has open axes; pass shape=")
        sample = [size for size in sizes if size is not None]
        noise = np.random.default_rng(0).random((self.batch or batch_size, *sample))
        scaled = (noise * (127 if port.dtype.kind in "iu" else 1)).astype(port.dtype)
        return Inputs({port.name: scaled})

    def batch_of(
        self, batch_size: int, shape: Sequence[int] | None, samples: Samples | None
    ) -> Batch:
        """Return a bound batch to time, of samples or else of noise."""
        if samples is None:
            return self.bind(self.noise(batch_size, shape), self.place)
        return self.bind(self.repeated(samples, batch_size), self.place)

    def repeated(self, x: Samples, batch_size: int) -> Inputs:
        """Return a batch of the first samples, repeated to the size asked for or fixed."""
        given = self.fitted(x)
        size = 1 if given.apart else self.batch or batch_size
        return given[np.arange(size) % len(given)]


def as_arrays(name: str, outputs: Sequence[str], values: Iterable[Any]) -> list[npt.NDArray[Any]]:
    """Return what a session gave as arrays.

    Raises: InvalidModel for an output that is no tensor, as the maps are that skl2onnx writes.
    """
    found = []
    for output, value in zip(outputs, values, strict=True):
        if not value.is_tensor():
            raise InvalidModel(
                f"{name}: output {output!r} is {value.data_type()}, expected a tensor; export the "
                "model with tensors as outputs (skl2onnx: options={'zipmap': False})"
            )
        found.append(np.asarray(value.numpy()))
    return found


def fixed_batch(model: ModelProto) -> int | None:
    """Return the number of samples that a model fixes, as `Net.batch` does once it is open."""
    weights = {tensor.name for tensor in model.graph.initializer}
    first = next((one for one in model.graph.input if one.name not in weights), None)
    dims = [] if first is None else first.type.tensor_type.shape.dim
    return dims[0].dim_value or None if dims else None


def _as(dtype: np.dtype[Any], name: str, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Samples in the type that a model takes. Raises: DataError where that loses values."""
    with np.errstate(over="ignore", invalid="ignore"):
        cast = np.ascontiguousarray(x, dtype)
    if dtype.kind in "iub":
        exact = all(map(np.array_equal, in_pieces(cast), in_pieces(x)))
    else:
        exact = is_finite(cast)
    if not exact:
        raise DataError(
            f"{name}: takes {dtype}, which cannot hold all values of these samples ({x.dtype}); "
            "scale, round or clean them"
        )
    return cast
