"""Remove channels from an ONNX graph, or mask them; what that saves.

Imports channels and graph; names no operator.

* `removal`: `remove_channels`, and its postcondition; `masking`: `mask`, its oracle
* `branches`: branches that go as a whole
* `editor`: the constants of a copy of the model; `cost`: parameters and multiply-adds;
  `estimate`: time, told from the graph alone
"""

from onnxprune.surgery.cost import (
    Cost,
    Costs,
    Figure,
    count,
    find_costs,
    knows_macs,
    node_macs,
    repeats,
)
from onnxprune.surgery.editor import Constants, copy_model
from onnxprune.surgery.estimate import estimate_time
from onnxprune.surgery.masking import mask
from onnxprune.surgery.removal import remove_channels, remove_channels_apart

__all__ = [
    "Constants",
    "Cost",
    "Costs",
    "Figure",
    "copy_model",
    "count",
    "estimate_time",
    "find_costs",
    "knows_macs",
    "mask",
    "node_macs",
    "remove_channels",
    "remove_channels_apart",
    "repeats",
]
