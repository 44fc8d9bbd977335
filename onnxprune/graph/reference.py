"""A few nodes run by ONNX's reference implementation, whatever it stumbles over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto

Array = npt.NDArray[Any]


def run_nodes(
    nodes: Sequence[NodeProto],
    outputs: Sequence[str],
    feeds: Mapping[str, Array],
    opsets: Mapping[str, int],
) -> list[Array]:
    """Return some outputs of nodes that are given in order, in the opset of a model.

    The nodes are wrapped in a graph, because a bare node is evaluated in the newest opset.
    Shapes: as the schemas of the operators say.
    Raises: ValueError, whatever goes wrong.
    """
    from onnx.reference import ReferenceEvaluator  # which reads every schema there is

    graph = onnx.GraphProto(node=nodes)
    graph.input.extend(onnx.ValueInfoProto(name=name) for name in feeds)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    try:
        evaluator = ReferenceEvaluator(graph, opsets={"": 1, **opsets})
        with np.errstate(all="ignore"):
            found = list(evaluator.run(None, dict(feeds)))
    except Exception as error:  # it checks little of what it is given
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not all(isinstance(one, np.ndarray | np.generic) for one in found):
        raise ValueError("an output that is no array")
    return [np.asarray(one) for one in found]
