"""A model without half of its channels, and what it is held against."""

from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from onnxprune.arrays import BoolArray
from onnxprune.channels.groups import ChannelGroups, find_groups
from onnxprune.graph.graph import Graph
from onnxprune.proof import Proof
from onnxprune.surgery.removal import remove_channels
from tests.support.halves import half


class Cut:
    """A model without half of its channels, and what it is held against."""

    def __init__(self, proto: ModelProto, **more: Any) -> None:
        self.graph = Graph(proto)
        self.groups: ChannelGroups = find_groups(self.graph)
        self.dead: BoolArray = half(self.groups)
        self.pruned = remove_channels(self.graph, self.groups, self.dead)
        self.proof = Proof(self.graph, self.groups, self.dead, **more)

    def weight(self, name: str) -> TensorProto:
        return next(t for t in self.pruned.graph.initializer if t.name == name)

    def scaled(self, name: str, factor: float) -> None:
        tensor = self.weight(name)
        array = numpy_helper.to_array(tensor) * np.float32(factor)
        tensor.CopyFrom(numpy_helper.from_array(array, name))

    def swapped(self, name: str) -> None:
        """Give two of the channels that are left each other's weights."""
        tensor = self.weight(name)
        array = np.roll(numpy_helper.to_array(tensor), 1, axis=1)
        tensor.CopyFrom(numpy_helper.from_array(array, name))
