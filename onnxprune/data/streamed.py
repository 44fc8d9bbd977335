"""Samples that stay where they are, read when they are asked for and ahead of who uses them.

Images in a folder and arrays in files can be more than fits into memory. `Streamed` stands for an
array of them. It is cut into batches as an array is, and a batch is read when a model takes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import IntArray
from onnxprune.memory import fits

Array = npt.NDArray[Any]
Read = Callable[[IntArray], Array]
Taken = TypeVar("Taken")
Made = TypeVar("Made")

DEPTH = 2
"""Batches that are made ahead of the one that is used."""


@dataclass(frozen=True, eq=False)
class Streamed:
    """Rows that are read when they are asked for: `read(numbers)` returns those of these numbers.

    `then` is done to what was read; `early` holds what is being read already; `together` says that
    neighbours are read at once. NumPy reads all of them where it takes this for an array.
    Shapes: numbers `[n]`, sample that of one, -> `[n, *sample]`.
    """

    read: Read
    numbers: IntArray
    sample: tuple[int, ...]
    dtype: np.dtype[Any]
    then: tuple[Callable[[Array], Array], ...] = ()
    early: Early = field(default_factory=lambda: Early(), repr=False)
    together: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array that this stands for."""
        return (len(self.numbers), *self.sample)

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return 1 + len(self.sample)

    @property
    def nbytes(self) -> int:
        """How many bytes it would take."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: Any) -> Any:
        """Return some of the rows, unread; one row, by its number, is read.

        Shapes: rows, a slice, numbers or a mask `[n]` -> `[m, *sample]`; a number -> `sample`.
        """
        chosen = self.numbers[rows]
        return replace(self, numbers=chosen) if np.ndim(chosen) else self._read(chosen[None])[0]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.asarray(self._read(self.numbers), dtype)

    def soon(self, rows: Any) -> None:
        """Begin to read some rows on a thread, for who asks for just these.

        Shapes: rows, a slice, numbers or a mask `[n]`.
        """
        self.early.begin(self.read, self.numbers[rows])

    def _read(self, numbers: IntArray) -> Array:
        values = self.early.take(self.read, numbers)
        for function in self.then:
            values = function(values)
        return values

    def changed(self, function: Callable[[Array], Array], dtype: np.dtype[Any]) -> Streamed:
        """Return what a function makes of each batch that is read. Shapes: as they are."""
        return replace(self, then=(*self.then, function), dtype=dtype)

    @classmethod
    def of(cls, array: Array | Streamed) -> Streamed:
        """Return an array as rows, of which none is copied before it is asked for.

        Shapes: array `[n, ...]`.
        """
        if isinstance(array, cls):
            return array
        assert isinstance(array, np.ndarray)
        return cls(array.__getitem__, np.arange(len(array)), array.shape[1:], array.dtype)

    @classmethod
    def joined(cls, parts: Sequence[Array | Streamed]) -> Streamed:
        """Return the rows of all parts, of one shape and type, one part after another.

        Shapes: parts `[n1, ...]`, `[n2, ...]`, ... -> `[n1 + n2 + ..., ...]`.
        """
        held = [cls.of(part) for part in parts]
        if len({(one.sample, one.dtype) for one in held}) > 1:
            shapes = ", ".join(str(one.shape) for one in held)
            raise ValueError(f"parts of shapes {shapes} cannot be joined")
        ends = np.cumsum([len(one) for one in held])
        first = held[0]
        return cls(Joined(held, ends), np.arange(ends[-1]), first.sample, first.dtype)


class Early:
    """Rows that a thread reads before they are asked for, at most `DEPTH` batches of them.

    `keeps` says that what was read stays in memory, as far as it fits: a worker reads the same
    batches again and again, and no others.
    """

    def __init__(self, *, keeps: bool = False) -> None:
        self._begun: dict[bytes, Future[Array]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._kept: dict[bytes, Array] | None = {} if keeps else None

    def __reduce__(self) -> tuple[Callable[[], Early], tuple[()]]:
        return partial(Early, keeps=True), ()  # another process begins anew

    def begin(self, read: Read, numbers: IntArray) -> None:
        """Begin to read rows, unless that has begun. Shapes: numbers `[m]`."""
        key = numbers.tobytes()
        if key in self._begun or key in (self._kept or ()):
            return
        while len(self._begun) >= DEPTH:  # nobody asked for the oldest
            self._begun.pop(next(iter(self._begun))).cancel()
        self._pool = self._pool or ThreadPoolExecutor(1)
        self._begun[key] = self._pool.submit(read, numbers)

    def take(self, read: Read, numbers: IntArray) -> Array:
        """Return rows, read now where that has not begun. Shapes: numbers `[m]` -> `[m, ...]`."""
        key = numbers.tobytes()
        if self._kept is not None and key in self._kept:
            return self._kept[key]
        begun = self._begun.pop(key, None)
        found = read(numbers) if begun is None else begun.result()
        if self._kept is not None and fits(sum(one.nbytes for one in self._kept.values())):
            self._kept[key] = found
        return found


@dataclass(frozen=True, eq=False)
class Joined:
    """Reads rows that stand in several parts. Shapes: ends `[parts]`, where each ends."""

    parts: Sequence[Streamed]
    ends: IntArray

    def __call__(self, numbers: IntArray) -> Array:
        """Shapes: numbers `[m]` -> `[m, *sample]`."""
        first = self.parts[0]
        values = np.empty((len(numbers), *first.sample), first.dtype)
        within = np.searchsorted(self.ends, numbers, "right")
        for number in np.unique(within):
            chosen, part = within == number, self.parts[number]
            values[chosen] = part[numbers[chosen] - (self.ends[number] - len(part))]
        return values


def ahead(
    make: Callable[[Taken], Made], items: Iterable[Taken], depth: int = DEPTH
) -> Iterator[Made]:
    """Yield what is made of each item, in order; a thread makes the next `depth` meanwhile.

    What `make` raises is raised in its turn.

    >>> list(ahead(abs, [-1, 2, -3]))
    [1, 2, 3]
    """
    waiting = deque[Future[Made]]()
    pool = ThreadPoolExecutor(1)
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
