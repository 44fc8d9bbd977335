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
from onnx import ModelProto

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

            def reducer_override(self, one: Any) -> Any:
                """Keep the bytes of a model apart as well."""
                if type(one) is ModelProto:
                    whole = one.SerializePartialToString()
                    return _parsed, (np.frombuffer(whole, np.uint8),)
                usual = getattr(super(), "reducer_override", None)
                return NotImplemented if usual is None else usual(one)

        content = io.BytesIO()
        Packer(content, protocol=5, buffer_callback=buffers.append).dump(value)
        arrays = [np.frombuffer(one.raw(), np.uint8) for one in buffers]
        return Parcel(content.getvalue(), arrays, tuple(dict.fromkeys(needs)))


class Receiver:
    """Opens each parcel once and keeps what was in it; `fetch` brings a parcel from its place."""

    def __init__(self, fetch: Callable[[Any], Parcel]) -> None:
        self._fetch = fetch
        self._places: dict[int, Any] = {}
        self._held: dict[int, Any] = {}

    def value(self, number: int) -> Any:
        """Return the value of a number."""
        if number not in self._held:
            self._held[number] = _open(self._fetch(self._places[number]), self.value)
        return self._held[number]

    def hear(self, places: Mapping[int, Any], alive: frozenset[int]) -> None:
        """Learn where more parcels are, and forget all but those of the numbers that are alive."""
        self._places.update(places)
        for known in (self._places, self._held):
            for number in known.keys() - alive:
                del known[number]


def _parsed(message: npt.NDArray[np.uint8]) -> ModelProto:
    """A model whose message lies in an array, which is not copied. Shapes: `[bytes]`."""
    found: ModelProto = ModelProto.FromString(message.data)
    return found


def _open(parcel: Parcel, needed: Callable[[int], Any]) -> Any:
    class Opener(pickle.Unpickler):
        def persistent_load(self, number: Any) -> Any:
            return needed(number)

    return Opener(io.BytesIO(parcel.content), buffers=parcel.arrays).load()
