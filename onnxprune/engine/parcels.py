"""Values on their way to a worker, each of them once.

A job holds samples, graphs and other portable values, which other jobs hold as well. In its parcel
each of them is a number, and has a parcel of its own. Arrays stay apart from the rest, so that an
object store can hand them to every worker of a machine without a copy.
"""

from __future__ import annotations

import io
import itertools
import pickle
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.engine.job import Portable


@dataclass(frozen=True)
class Parcel:
    """A pickled value, its arrays, and the numbers of the parcels that it needs."""

    content: bytes
    arrays: Sequence[npt.NDArray[np.uint8]]
    needs: tuple[int, ...]


class Sender:
    """Hands each portable value over once; forgets it with the value.

    `put` places a parcel where workers find it. `pickler` is the class that pickles.
    """

    def __init__(
        self, put: Callable[[Parcel], Any], pickler: type[pickle.Pickler] = pickle.Pickler
    ) -> None:
        self._put, self._pickler = put, pickler
        self._numbers: dict[int, int] = {}
        self._sent: dict[int, tuple[Any, tuple[int, ...]]] = {}
        self._next = itertools.count()

    def number(self, value: Portable) -> int:
        """Return the number of a value, which is sent unless it was before."""
        known = self._numbers.get(id(value))
        if known is not None:
            return known
        number = next(self._next)
        parcel = self._pack(value)
        self._numbers[id(value)] = number
        self._sent[number] = self._put(parcel), parcel.needs
        weakref.finalize(value, self._forget, id(value), number).atexit = False
        return number

    def places(self, *numbers: int) -> dict[int, Any]:
        """Return where the parcels of these numbers are, and all that they need."""
        found: dict[int, Any] = {}
        left = list(numbers)
        while left:
            number = left.pop()
            if number not in found:
                found[number], needs = self._sent[number]
                left += needs
        return found

    @property
    def alive(self) -> frozenset[int]:
        """The numbers of all values that may still be asked for."""
        return frozenset(self._sent)

    def _forget(self, identity: int, number: int) -> None:
        self._numbers.pop(identity, None)
        self._sent.pop(number, None)

    def _pack(self, value: Portable) -> Parcel:
        buffers: list[pickle.PickleBuffer] = []
        needs: list[int] = []
        sender = self

        class Packer(self._pickler):  # type: ignore[name-defined,misc]
            def persistent_id(self, one: Any) -> int | None:
                if not isinstance(one, Portable) or one is value:
                    return None
                needs.append(sender.number(one))
                return needs[-1]

        content = io.BytesIO()
        Packer(content, protocol=5, buffer_callback=buffers.append).dump(value)
        arrays = [np.frombuffer(one.raw(), np.uint8) for one in buffers]
        return Parcel(content.getvalue(), arrays, tuple(dict.fromkeys(needs)))


class Receiver:
    """Opens each parcel once and keeps what was in it; `fetch` brings a parcel from its place."""

    def __init__(self, fetch: Callable[[Any], Parcel]) -> None:
        self._fetch = fetch
        self._held: dict[int, Any] = {}

    def value(self, number: int, places: Mapping[int, Any]) -> Any:
        """Return the value of a number."""
        if number not in self._held:
            parcel = self._fetch(places[number])
            self._held[number] = _open(parcel, lambda one: self.value(one, places))
        return self._held[number]

    def keep(self, alive: frozenset[int]) -> None:
        """Forget all values but those of some numbers."""
        for number in self._held.keys() - alive:
            del self._held[number]


def _open(parcel: Parcel, needed: Callable[[int], Any]) -> Any:
    class Opener(pickle.Unpickler):
        def persistent_load(self, number: Any) -> Any:
            return needed(number)

    return Opener(io.BytesIO(parcel.content), buffers=parcel.arrays).load()
