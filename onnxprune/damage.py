"""What thinning each layer alone does to the outputs: the measured exchange rate between layers.

Relevance orders filters well within a layer; how much a unit of relevance is worth in one layer
against another it does not know. So each layer is thinned alone, by its least relevant filters, and
the change of the outputs is measured: the Kullback-Leibler divergence from the unpruned class
probabilities, on the reference samples. Only the nodes after the layer run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onnxprune.batches import batches_of
from onnxprune.channels import BoolArray, ChannelGroups
from onnxprune.data import Data
from onnxprune.graph import Graph
from onnxprune.mirror import Mirror
from onnxprune.ops._torch import functional, torch
from onnxprune.surgery import masked_constants

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = npt.NDArray[np.float64]


def log_probabilities(logits: Tensor) -> Tensor:
    """Return the log of the class probabilities. Shapes: logits `[N, K, 1..]` -> `[N, K]`."""
    return functional.log_softmax(logits.flatten(1).double(), dim=1)


def reference_outputs(graph: Graph, data: Data, *, device: str, batch_size: int) -> list[Tensor]:
    """Return the log probabilities of the unpruned model, batch by batch. Shapes: each `[n, K]`."""
    mirror = Mirror(graph, device=device)
    with torch.no_grad():
        batches = batches_of(mirror, data, batch_size)
        return [log_probabilities(mirror(x))[: len(y)] for x, y in batches]


def measure_damage(
    graph: Graph,
    groups: ChannelGroups,
    probes: Sequence[BoolArray],
    data: Data,
    reference: Sequence[Tensor],
    class_weights: FloatArray,
    *,
    device: str = "auto",
    batch_size: int = 32,
) -> FloatArray:
    """Return how far each probe moves the outputs from the reference, beyond where they are now.

    Shapes: probes each `[channels]`, reference as `reference_outputs`, class_weights `[classes]`
    -> `[probes]`.
    Units: nats, mean over a class's samples, weighted mean over classes.
    """
    mirror = Mirror(graph, device=device)
    masked = [
        {
            name: torch.from_numpy(array).to(mirror.device, mirror.dtype)
            for name, array in masked_constants(graph, groups, dead).items()
        }
        for dead in probes
    ]
    weight = _sample_weights(data, class_weights)
    total = np.zeros(len(probes) + 1)
    start = 0
    with torch.no_grad():
        batches = batches_of(mirror, data, batch_size)
        for (x, y), before in zip(batches, reference, strict=True):
            share = torch.from_numpy(weight[start : start + len(y)]).to(mirror.device)
            start += len(y)
            trace = mirror.trace(x)
            outputs = [trace[graph.outputs[0]], *(mirror.resume(trace, m) for m in masked)]
            for k, logits in enumerate(outputs):
                now = log_probabilities(logits)[: len(y)]
                distance = (before.exp() * (before - now)).sum(1)
                total[k] += float((distance * share).sum())
    return np.asarray(np.maximum(total[1:] - total[0], 0.0))


def _sample_weights(data: Data, class_weights: FloatArray) -> FloatArray:
    """Each sample's share of the weighted mean over classes. Shapes: `[n]`."""
    count = np.bincount(data.y, minlength=len(class_weights))
    present = count > 0
    scale = np.where(present, class_weights / np.maximum(count, 1), 0.0)
    return np.asarray(scale[data.y] / max(class_weights[present].sum(), 1e-12))
