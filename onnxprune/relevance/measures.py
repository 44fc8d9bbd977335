"""What a filter is measured by: one function for each criterion.

* From samples: `(mirror, x, y, tensors) -> values` for each sample and filter, with their sign.
  `tensors` are the outputs of convolutions by name, each with the axis of its filters.
* From weights: `(weight, rng) -> values` for each filter.
* From the graph: `(graph, filters) -> values` for each filter.

Shapes: x `[N, ...]`, y `[N]` or maps `[N, H, W]` -> values `[N, filters]` by tensor; weight
`[filters, inputs]` -> values `[filters]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray
from onnxprune.channels import Filters
from onnxprune.data import IGNORED, Head
from onnxprune.errors import UnsupportedOp
from onnxprune.graph import Graph
from onnxprune.ops import Relevance
from onnxprune.ops._torch import functional, torch
from onnxprune.relevance.batches import by_filter
from onnxprune.relevance.fuse import is_diagonal
from onnxprune.relevance.lrp import (
    by_class,
    check_labels,
    deviation_of,
    is_labelled,
    pixel_weights,
    random_signs,
    relevance,
    with_batch,
)
from onnxprune.relevance.mirror import Mirror, Step, Tensors
from onnxprune.relevance.routes import find_ends

if TYPE_CHECKING:
    from torch import Tensor

    from onnxprune.relevance.rules import Composite


BLOCK = 2**16
"""Elements of a weight that are computed at once: 512 KiB in float64 fit into a cache."""


def _space(x: Tensor, axis: int, samples: int) -> Tensor:
    """Sum over all but the samples and `axis`, in float64. Shapes: `[N, *]` -> `[N, C]`."""
    return by_filter(x, axis, samples).sum(2, dtype=torch.float64)


def lrp(
    mirror: Mirror,
    x: npt.NDArray[Any],
    y: Tensor,
    tensors: Mapping[str, int],
    *,
    composite: Composite,
) -> Tensors:
    """The relevance of a filter's output, summed over space, with normalisation folded in.

    Shapes: as the module says.
    Units: shares of the explained logits, see `relevance`.
    Raises: UnsupportedOp where LRP cannot cross a node; DataError for a label without a logit.
    Source: Yeom et al. 2021, section 3.
    """
    return relevance(
        mirror, x, y, composite, tensors, reduce=lambda name, r: _space(r, tensors[name], len(x))
    )


def taylor(mirror: Mirror, x: npt.NDArray[Any], y: Tensor, tensors: Mapping[str, int]) -> Tensors:
    """The first-order change of the loss without the filter: `a dL/da`, summed over space.

    L is the cross-entropy of the true class, a the filter's output. Of an output without class
    scores, L is the sum of its numbers in units of their deviation, with random signs.
    Shapes: as the module says.
    Units: nats.
    Raises: UnsupportedOp where no gradient reaches a convolution; DataError for a label without a
    logit.
    Source: Molchanov et al. 2017, eq. 8.
    """
    kept, slopes = _slopes(mirror, x, y, tensors)
    return {
        name: _space(kept[name].detach() * slope, tensors[name], len(x))
        for name, slope in slopes.items()
    }


def gradient(mirror: Mirror, x: npt.NDArray[Any], y: Tensor, tensors: Mapping[str, int]) -> Tensors:
    """The slope of the loss in the filter's bias: `dL/da` at its output, summed over space.

    Shapes: as the module says.
    Units: nats for each unit of the filter's output.
    Raises: as `taylor`.
    Source: Sun et al. 2017, section 3 (meProp); as a criterion Yeom et al. 2021, section 4.
    """
    return {
        name: _space(slope, tensors[name], len(x))
        for name, slope in _slopes(mirror, x, y, tensors)[1].items()
    }


def _slopes(
    mirror: Mirror, x: npt.NDArray[Any], y: Tensor, tensors: Mapping[str, int]
) -> tuple[Tensors, Tensors]:
    """The named tensors, and the gradient of the loss at each that it depends on."""
    ends, outputs = find_ends(mirror), Tensors()
    env = mirror.start(x)
    kept: Tensors = {}
    with torch.enable_grad():
        for step in mirror.walk(env):
            mirror.execute(step, env)
            for name in step.node.outputs:
                if name in tensors and name in env and env[name].is_floating_point():
                    kept[name] = env[name].requires_grad_()
            outputs.update({name: env[name] for name in step.node.outputs if name in ends})
            if len(outputs) == len(ends):
                break
        held = with_batch(outputs, ends)
        smooth = {name: value for name, value in held.items() if value.requires_grad}
        if not smooth:
            raise UnsupportedOp(
                f"graph '{mirror.graph.proto.name}': no gradient comes from '{next(iter(ends))}' "
                f"to a convolution, as values are rounded to integers in between; score the model "
                f"before it was quantised"
            )
        rng = np.random.default_rng(0)
        losses = [_loss_of(ends, name, value, y, rng) for name, value in smooth.items()]
        loss = torch.stack(losses).sum()
        grads = torch.autograd.grad(loss, list(kept.values()), allow_unused=True)
    found = zip(kept, grads, strict=True)
    return kept, {name: grad for name, grad in found if grad is not None}


def _loss_of(
    heads: Mapping[str, Head], name: str, output: Tensor, y: Tensor, rng: np.random.Generator
) -> Tensor:
    """The loss of one output, summed over samples; without labels the highest class is true."""
    head = heads[name]
    if is_labelled(output, heads, y):
        return _loss(*by_class(output, y))
    if head.kind == "classes" and output.shape[head.axis] > 1:
        z = output.movedim(head.axis, 1)[..., None].flatten(2)
        return functional.cross_entropy(z, z.argmax(1), reduction="sum") / z.shape[2]
    return (output * random_signs(output, rng) / deviation_of(head, output)).sum()


def _loss(logits: Tensor, y: Tensor) -> Tensor:
    """The summed cross-entropy of the true classes; a single logit belongs to class 1.

    Pixels are weighed by `pixel_weights`.
    Shapes: logits `[N, K]`, y `[N]`; logits `[N, K, H, W]`, maps y `[N, H, W]`.
    """
    check_labels(y, logits.shape[1])
    weights = None if y.ndim == 1 else pixel_weights(y)
    if logits.shape[1] == 1:
        truth = y.clamp(0, 1)[:, None].to(logits.dtype)
        return functional.binary_cross_entropy_with_logits(
            logits, truth, None if weights is None else weights[:, None], reduction="sum"
        )
    if weights is None:
        return functional.cross_entropy(logits, y, reduction="sum")
    losses = functional.cross_entropy(logits, y, ignore_index=IGNORED, reduction="none")
    return (losses * weights).sum()


def activation(
    mirror: Mirror, x: npt.NDArray[Any], y: Tensor, tensors: Mapping[str, int]
) -> Tensors:
    """The mean over space of `max(a, 0)`, a being the filter's output as a real number.

    Shapes: as the module says.
    Units: those of the activation.
    Source: Molchanov et al. 2017, section 2.2.
    """
    env = mirror.start(x)
    found: Tensors = {}
    with torch.no_grad():
        for step in mirror.walk(env):
            mirror.execute(step, env)
            for name in step.node.outputs:
                if name in tensors and name in env:
                    real = _real(mirror, step, env, env[name])
                    passed = by_filter(real.clamp(min=0), tensors[name], len(x))
                    found[name] = passed.mean(2, dtype=torch.float64)
    return found


def _real(mirror: Mirror, step: Step, env: Tensors, value: Tensor) -> Tensor:
    """The real numbers that an output holds, which may be quantised."""
    if step.op.quantises is None:
        return value
    given = mirror.arguments(step, env)
    scale, zero = (given[place].to(torch.float64) for place in step.op.quantises)
    real: Tensor = (value - zero) * scale
    return real


def magnitude(weight: npt.NDArray[Any], rng: np.random.Generator, *, order: int = 2) -> FloatArray:
    """The norm of a filter's weights, computed in float64.

    Shapes: weight `[filters, inputs]` -> `[filters]`.
    Units: those of the weights.
    Source: Li et al. 2017, section 3.1 (l1).
    """
    step = max(1, BLOCK // max(weight.shape[1], 1))
    blocks = (weight[k : k + step].astype(np.float64) for k in range(0, len(weight), step))
    return np.concatenate([np.linalg.norm(block, order, axis=1) for block in blocks])


def geometric_median(weight: npt.NDArray[Any], rng: np.random.Generator) -> FloatArray:
    """The sum of a filter's distances to the layer's other filters.

    A filter near the geometric median of its layer is represented by the others.
    Shapes: weight `[filters, inputs]` -> `[filters]`.
    Units: those of the weights.
    Source: He et al. 2019, eq. 4.
    """
    weight = weight.astype(np.float64, copy=False)
    gram = weight @ weight.T
    square = np.diag(gram)[:, None] + np.diag(gram) - 2 * gram
    return np.asarray(np.sqrt(np.maximum(square, 0)).sum(1))


def random(weight: npt.NDArray[Any], rng: np.random.Generator) -> FloatArray:
    """A random number from 0 to 1: the baseline that every criterion has to beat.

    Shapes: weight `[filters, inputs]` -> `[filters]`.
    """
    return rng.random(len(weight))


def batchnorm_scale(graph: Graph, filters: Filters) -> FloatArray | None:
    """The scale `|γ|` of the batch normalisation that follows the convolution; None without one.

    The normalisation has to be the only node that reads the convolution.
    Shapes: -> `[filters]`.
    Source: Liu et al. 2017, section 3 (network slimming).
    """
    readers = graph.consumers.get(filters.output, [])
    op = readers[0].op if len(readers) == 1 else None
    if op is None or op.relevance is not Relevance.LINEAR or not op.weights:
        return None
    if not is_diagonal(graph, Step(readers[0], op)):
        return None
    scale = readers[0].inputs[op.weights[0]]
    if scale not in graph.constant_tensors:
        return None
    return np.abs(np.asarray(graph.constant(scale), np.float64)).ravel()
