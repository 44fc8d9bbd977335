"""One sample: that it is only one is said, with how more are given.

Arrays in exactly the shapes of a model whose batch is fixed at 1 are one sample. Nobody would
notice it, as a network that is corrected on one sample agrees on that one down to any size.
"""

from __future__ import annotations

import logging

from onnxprune.data import Data, by_name
from onnxprune.graph import Graph

logger = logging.getLogger(__name__)


def warn_of_one(graph: Graph, data: Data) -> None:
    """Warn where there is one sample in all."""
    if len(data) != 1:
        return
    arrays = by_name(data.x, graph.inputs[0]).arrays
    found, wanted = (
        ", ".join(
            f"{name} [{', '.join(map(str, (count, *array.shape[1:])))}]"
            for name, array in arrays.items()
        )
        for count in (1, "N")
    )
    logger.warning(
        "samples: 1 in all (%s), by which nothing is told of others; stack N along the first axis "
        "(%s), or give a folder with a file for each",
        found,
        wanted,
    )
