"""Memory: the last few values that were dear to make."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass
class Memory(Generic[Value]):
    """The last few values that were made, by key."""

    size: int
    _held: dict[Hashable, Value] = field(default_factory=dict)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of a key, made now unless it is remembered."""
        if key not in self._held:
            while len(self._held) >= self.size:
                del self._held[next(iter(self._held))]
            self._held[key] = make()
        return self._held[key]
