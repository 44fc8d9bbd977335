"""Inputs like those that a network was trained on, made from the statistics that it stores.

A batch normalisation that is kept in the graph holds the mean and the variance that its input had
in training. Inputs are changed by gradient descent until the tensors in front of all of them have
these again.

Source: Cai et al. 2020, ZeroQ, arXiv 2001.00281; Yin et al. 2020, DeepInversion, arXiv 1912.08795.
Comparing normal distributions by their divergence, where these compare means and variances by
squares, makes layers of all scales count alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.data import Inputs
from onnxprune.graph import Graph
from onnxprune.ops._torch import torch
from onnxprune.relevance.batches import fixed_batch
from onnxprune.relevance.mirror import Mirror

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 20
"""Steps of gradient descent: beyond, inputs change little that pruning would notice."""
RATE = 0.1
"""The length of a step. Unit: standard deviation of the input."""
BATCH = 16
"""Inputs whose statistics are matched together."""
EPSILON = 1e-5
"""Added to variances, some of which are 0. Unit: the mean stored variance of the tensor."""


@dataclass(frozen=True)
class Statistics:
    """What a batch normalisation stores of its input. Shapes: mean, variance `[channels]`."""

    tensor: str
    mean: npt.NDArray[Any]
    variance: npt.NDArray[Any]


def stored_statistics(graph: Graph) -> list[Statistics]:
    """Return the statistics that the batch normalisations of a graph store."""
    found = []
    for node in graph.nodes:
        if node.op_type == "BatchNormalization" and len(node.inputs) >= 5:
            tensor, _, _, mean, variance = node.inputs[:5]
            if {mean, variance} <= graph.constant_names:
                found.append(Statistics(tensor, graph.constant(mean), graph.constant(variance)))
    return found


def match_statistics(graph: Graph, inputs: Inputs, *, device: str = "auto") -> Inputs:
    """Return the inputs, changed until the network has the statistics that it stores.

    Inputs of integers stay. Shapes: as the inputs.
    """
    stored = stored_statistics(graph)
    mirror = Mirror(graph, device=device, outputs=[one.tensor for one in stored])
    count, fixed = len(inputs), fixed_batch(mirror, inputs)
    size = fixed or BATCH
    rows = np.minimum(np.arange(-(-count // size) * size if fixed else count), count - 1)
    parts = [
        _matched(mirror, stored, inputs[rows[k : k + size]]) for k in range(0, len(rows), size)
    ]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Inputs(whole)[:count]


def distance(found: Mapping[str, Tensor], stored: list[Statistics]) -> Tensor:
    """Return how far tensors are from the stored statistics.

    It is the divergence of normal distributions, the mean over channels and normalisations.
    Shapes: found, each `[n, channels, ...]`. Units: nats.
    """
    return torch.stack([_divergence(found[one.tensor], one) for one in stored]).mean()


def _divergence(values: Tensor, stored: Statistics) -> Tensor:
    axes = [axis for axis in range(values.ndim) if axis != 1]
    mean, variance = (
        torch.from_numpy(np.array(one, np.float32)).to(values.device)
        for one in (stored.mean, stored.variance)
    )
    least = EPSILON * variance.mean() + torch.finfo(torch.float32).tiny
    ratio = (values.var(axes, correction=0) + least) / (variance + least)
    shift = (values.mean(axes) - mean) ** 2 / (variance + least)
    return 0.5 * (ratio + shift - 1 - torch.log(ratio)).mean()


def _matched(
    mirror: Mirror, stored: list[Statistics], inputs: Inputs
) -> dict[str, npt.NDArray[Any]]:
    """Match one batch."""
    env = {name: torch.from_numpy(array) for name, array in inputs.arrays.items()}
    free = {name: value for name, value in env.items() if value.is_floating_point()}
    groups = [
        {"params": [value.requires_grad_()], "lr": RATE * float(value.detach().std())}
        for value in free.values()
    ]
    optimiser = torch.optim.Adam(groups)
    for _ in range(STEPS):
        optimiser.zero_grad()
        distance(mirror.run(env), stored).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return {name: value.detach().numpy() for name, value in env.items()}
