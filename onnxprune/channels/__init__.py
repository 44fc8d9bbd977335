"""Which channels of a graph go together, which stay, and why.

Imports graph and ops; names no operator. `find_groups` is the way in.

* `groups`: the result: channels, their groups, the reasons of those that stay
* `propagate`: one walk through the graph that gives every axis its labels
* `labels`: sets of channels that can only go together; `axis_labels`: labels by the letters of an
  operator's pattern; `shuffles`: several moves that as a whole only reorder channels
"""

from onnxprune.channels.groups import (
    STAYS,
    ChannelGroups,
    Filters,
    Kept,
    find_groups,
    kept_positions,
)
from onnxprune.channels.labels import Labels
from onnxprune.channels.shuffles import Shuffle, find_shuffles

__all__ = [
    "STAYS",
    "ChannelGroups",
    "Filters",
    "Kept",
    "Labels",
    "Shuffle",
    "find_groups",
    "find_shuffles",
    "kept_positions",
]
