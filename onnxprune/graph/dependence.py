"""Which known values depend on the lengths of some axes: they are computed again with others.

Target shapes, bounds and factors are often computed from the shapes of other tensors. An element
that is the same for both lengths does not depend on these axes. Only the arithmetic is followed, so
the other lengths need not fit the network.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.graph.facts import Facts
from onnxprune.ops import Node, Shapes

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]


@dataclass
class Variation:
    """Known values with other lengths: call `follow` for each node in order.

    `lengths(tensor)` gives the other lengths of some of its axes. `values` holds the tensors that
    differ from their known values, None where the other value could not be computed.
    Shapes: `values[t]` may have another shape than the known value.
    """

    facts: Facts
    lengths: Callable[[str], Mapping[int, int]]
    values: dict[str, Array | None] = field(default_factory=dict)

    def follow(self, node: Node) -> None:
        """Compute the outputs of `node` again, where its inputs differ."""
        if node.op is None or any(name not in self.facts.values for name in node.outputs if name):
            return
        present = [name for name in node.inputs if name]
        if isinstance(node.op.how, Shapes):
            differs = any(self.lengths(name) for name in present)
            feeds = {name: self._blank(name) for name in present}
        else:
            differs = any(name in self.values for name in present)
            feeds = {name: self._value(name) for name in present}
        if not differs:
            return
        for name, value in zip(filter(None, node.outputs), self._run(node, feeds), strict=False):
            if value is None or not np.array_equal(value, self.facts.values[name]):
                self.values[name] = value

    def differs(self, name: str) -> npt.NDArray[np.bool_]:
        """Say of each element of a known value whether it differs.

        Shapes: that of the known value.
        """
        value = self.facts.values[name]
        if name not in self.values:
            return np.zeros(value.shape, np.bool_)
        other = self.values[name]
        if other is None or other.shape != value.shape:
            return np.ones(value.shape, np.bool_)
        return np.asarray(other != value)

    def resizes(self, name: str) -> bool:
        """Say whether a known value has another shape."""
        if name not in self.values:
            return False
        other = self.values[name]
        return other is None or other.shape != self.facts.values[name].shape

    def _value(self, name: str) -> Array | None:
        return self.values[name] if name in self.values else self.facts.values[name]

    def _blank(self, name: str) -> Array | None:
        """An array of the tensor's other shape, which takes no memory."""
        shape, lengths = self.facts.shape(name) or (), self.lengths(name)
        return np.broadcast_to(np.uint8(0), [lengths.get(k, n) for k, n in enumerate(shape)])

    def _run(self, node: Node, feeds: Mapping[str, Array | None]) -> list[Array | None]:
        known = {name: value for name, value in feeds.items() if value is not None}
        try:
            if len(known) == len(feeds):
                return [np.asarray(result) for result in self.facts.run(node, known)]
        except ValueError as error:
            logger.debug("%s: no value with other lengths: %s", node, error)
        return [None] * len(node.outputs)
