"""Which channels of a graph go together, which stay, and why.

Imports graph and ops; names no operator. `find_groups` is the way in.

* `groups`: the result: channels, their groups, the reasons of those that stay
* `propagate`: one walk through the graph that gives every axis its labels
* `labels`: sets of channels that can only go together, and the `Reason` of one that stays
* `axis_labels`: labels by the letters of an operator's pattern
* `placement`: the axis that moved labels cut a tensor along; `lookahead`: the axes that nodes
  further on need whole
* `shuffles`: several nodes that together only reorder channels; `places`: where those that are
  written in place are listed
* `requests`: what may go on request only; `whole_branches`: what is left where all of one goes
* `choices`: which channels may still go, as a search says it to what orders them
"""

from onnxprune.channels.choices import Choices
from onnxprune.channels.groups import (
    GROUPS,
    STAYS,
    ChannelGroups,
    Filters,
    find_groups,
)
from onnxprune.channels.labels import Reason
from onnxprune.channels.places import Source, find_source
from onnxprune.channels.requests import ALLOW_INEXACT, ALSO, BRANCHES, DENSE
from onnxprune.channels.shuffles import Shuffle, find_shuffles
from onnxprune.channels.whole_branches import Remains, empty_tensors, find_remains

__all__ = [
    "ALLOW_INEXACT",
    "ALSO",
    "BRANCHES",
    "DENSE",
    "GROUPS",
    "STAYS",
    "ChannelGroups",
    "Choices",
    "Filters",
    "Reason",
    "Remains",
    "Shuffle",
    "Source",
    "empty_tensors",
    "find_groups",
    "find_remains",
    "find_shuffles",
    "find_source",
]
