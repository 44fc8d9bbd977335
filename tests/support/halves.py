"""Random halves of the channels that may go."""

import numpy as np

from onnxprune.arrays import BoolArray
from onnxprune.channels.groups import ChannelGroups
from onnxprune.search.limits import Limits
from onnxprune.search.picker import Picker


def half(groups: ChannelGroups, seed: int = 0) -> BoolArray:
    """A random half of the removable channels, as far as no axis is emptied."""
    order = np.random.default_rng(seed).permutation(len(groups))
    order = order[groups.removable[order]]
    dead = np.zeros(len(groups), np.bool_)
    dead[Picker(groups, Limits()).pick(order, dead)[: len(order) // 2]] = True
    return dead
