"""A small net with samples, its forward in plain torch, and scores to hold against it."""

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from onnxprune.channels.groups import ChannelGroups, find_groups
from onnxprune.data import Data
from onnxprune.graph.graph import Graph
from onnxprune.relevance.criteria import Scores
from tests.support.models import images, model

CLOSE = 1e-4
"""Relative, in single precision."""


NET = """
g (float[N,3,8,8] x) => (float[N,3] y)
<float[4,3,3,3] w1, float[4] b1, float[4,4,3,3] w2, float[4] b2, float[4,3] v> {
  a = Conv<pads=[1,1,1,1]>(x, w1, b1)
  r = Relu(a)
  c = Conv<pads=[1,1,1,1]>(r, w2, b2)
  s = Add(r, c)
  t = Relu(s)
  p = GlobalAveragePool(t)
  f = Flatten(p)
  z = MatMul(f, v)
  y = Softmax(z)
}
"""


LABELS = [0, 2, 2, 0, 2, 0, 0]


def setting(text: str = NET) -> tuple[Graph, ChannelGroups, Data]:
    proto = model(text)
    graph = Graph(proto)
    x = images(proto, len(LABELS))
    return graph, find_groups(graph), Data(x, np.array(LABELS), ("cat", "dog", "ship"))


def constants(graph: Graph) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(graph.constant(name)) for name in graph.initializers}


def forward(graph: Graph, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same net in plain torch: both convolutions' outputs and the logits."""
    w = constants(graph)
    a = functional.conv2d(x, w["w1"], w["b1"], padding=1)
    r = torch.relu(a)
    c = functional.conv2d(r, w["w2"], w["b2"], padding=1)
    return a, c, torch.relu(r + c).mean((2, 3)) @ w["v"]


def class_means(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    rows = [values[np.array(LABELS) == c] for c in range(3)]
    return np.array([row.mean(0) if len(row) else 0 * values[0] for row in rows])


def assert_scores(found: Scores, expected: npt.NDArray[np.float64]) -> None:
    np.testing.assert_allclose(found.values, expected, rtol=CLOSE, atol=CLOSE * expected.max())


def normalised(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return values / np.linalg.norm(values.mean(0))
