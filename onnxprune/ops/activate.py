"""Activations: each element of the output depends on the same element of the input.

Channels align; relevance passes through unchanged, because an activation owns no weight that could
share it out. Where an activation of 0 is not 0, as of a sigmoid, it goes by the slope. A softmax
mixes the axis it normalises, so it keeps the channels of that axis.
Source for the relevance: Bach et al. 2015, section 2.3; Montavon et al. 2019, section 10.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from onnx import helper

from onnxprune.errors import UnsupportedAttribute
from onnxprune.ops._op import Kind, Relevance, op
from onnxprune.ops._torch import functional, torch
from onnxprune.ops.channels import ALIGNS, How, Pins, mixed
from onnxprune.ops.node import Node, node_of
from onnxprune.ops.site import Site

if TYPE_CHECKING:
    from torch import Tensor

MIXES = "which normalises over these channels"

FLOATS = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
"""Floating element types by their number in ONNX's TensorProto."""

WHOLE = {
    **{2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32"},
    **{7: "int64", 9: "bool", 12: "uint32", 13: "uint64"},
}
"""Integers and booleans, the same way."""


@op("Relu", ALIGNS, since=(6, 13, 14))
def relu(x: Tensor, /) -> Tensor:
    """The larger of x and 0. Source: ONNX operator Relu-14."""
    return torch.relu(x)


@op("LeakyRelu", ALIGNS, since=(6, 16))
def leaky_relu(x: Tensor, /, *, alpha: float = 0.01) -> Tensor:
    """Negative values times `alpha`. Source: ONNX operator LeakyRelu-16."""
    return functional.leaky_relu(x, alpha)


@op("PRelu", ALIGNS, since=(7, 9, 16))
def prelu(x: Tensor, slope: Tensor, /) -> Tensor:
    """Negative values times a learned slope, often one for each channel.

    Shapes: slope broadcasts to x.
    Source: ONNX operator PRelu-16.
    """
    return torch.where(x < 0, slope * x, x)


@op("Elu", ALIGNS, since=(6, 22))
def elu(x: Tensor, /, *, alpha: float = 1.0) -> Tensor:
    """Negative values become `alpha (exp x - 1)`. Source: ONNX operator Elu-22."""
    return functional.elu(x, alpha)


@op("Selu", ALIGNS, since=(6, 22))
def selu(
    x: Tensor, /, *, alpha: float = 1.6732631921768188, gamma: float = 1.0507010221481323
) -> Tensor:
    """Elu times `gamma`. Source: ONNX operator Selu-22."""
    return gamma * functional.elu(x, alpha)


@op("Celu", ALIGNS, since=(12, 28))
def celu(x: Tensor, /, *, alpha: float = 1.0) -> Tensor:
    """Negative values become `alpha (exp(x / alpha) - 1)`. Source: ONNX operator Celu-28."""
    return functional.celu(x, alpha)


@op("Sigmoid", ALIGNS, since=(6, 13), relevance=Relevance.SLOPE)
def sigmoid(x: Tensor, /) -> Tensor:
    """`1 / (1 + exp -x)`. Source: ONNX operator Sigmoid-13."""
    return torch.sigmoid(x)


@op("HardSigmoid", ALIGNS, since=(6, 22), relevance=Relevance.SLOPE)
def hard_sigmoid(x: Tensor, /, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """`alpha x + beta`, held between 0 and 1. Source: ONNX operator HardSigmoid-22."""
    return torch.clamp(alpha * x + beta, 0, 1)


@op("HardSwish", ALIGNS, since=(14, 22))
def hard_swish(x: Tensor, /) -> Tensor:
    """x times its hard sigmoid of slope 1/6. Source: ONNX operator HardSwish-22."""
    return functional.hardswish(x)


@op("Swish", ALIGNS, since=(24,))
def swish(x: Tensor, /, *, alpha: float = 1.0) -> Tensor:
    """x times `sigmoid(alpha x)`. Source: ONNX operator Swish-24."""
    return x * torch.sigmoid(alpha * x)


@op("SwiGLU", ALIGNS, since=(28,), relevance=Relevance.GATE)
def swiglu(gate: Tensor, x: Tensor, /, *, alpha: float = 1.0) -> Tensor:
    """x times the swish of a gate. Source: ONNX operator SwiGLU-28."""
    return swish(gate, alpha=alpha) * x


@op("Mish", ALIGNS, since=(18, 22))
def mish(x: Tensor, /) -> Tensor:
    """`x tanh(softplus x)`. Source: ONNX operator Mish-22."""
    return functional.mish(x)


@op("Gelu", ALIGNS, since=(20,))
def gelu(x: Tensor, /, *, approximate: str = "none") -> Tensor:
    """x times the normal distribution up to x. Source: ONNX operator Gelu-20."""
    return functional.gelu(x, approximate=approximate)


@op("Softplus", ALIGNS, since=(1, 22), relevance=Relevance.SLOPE)
def softplus(x: Tensor, /) -> Tensor:
    """`log(1 + exp x)`, for any x without overflow. Source: ONNX operator Softplus-22."""
    return torch.logaddexp(x, torch.zeros_like(x))


@op("Softsign", ALIGNS, since=(1, 22))
def softsign(x: Tensor, /) -> Tensor:
    """`x / (1 + |x|)`. Source: ONNX operator Softsign-22."""
    return functional.softsign(x)


@op("Tanh", ALIGNS, since=(6, 13))
def tanh(x: Tensor, /) -> Tensor:
    """Hyperbolic tangent. Source: ONNX operator Tanh-13."""
    return torch.tanh(x)


@op("Erf", ALIGNS, since=(9, 13))
def erf(x: Tensor, /) -> Tensor:
    """Error function. Source: ONNX operator Erf-13."""
    return torch.erf(x)


@op("ThresholdedRelu", ALIGNS, since=(10, 22))
def thresholded_relu(x: Tensor, /, *, alpha: float = 1.0) -> Tensor:
    """x where it is above `alpha`, else 0. Source: ONNX operator ThresholdedRelu-22."""
    return torch.where(x > alpha, x, torch.zeros_like(x))


@op("Shrink", ALIGNS, since=(9,))
def shrink(x: Tensor, /, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    """x pulled towards 0 by `bias`, and 0 within `lambd` of it. Source: ONNX operator Shrink-9."""
    low, high = torch.where(x < -lambd, x + bias, 0.0), torch.where(x > lambd, x - bias, 0.0)
    return (low + high).to(x.dtype)


@op("Clip", ALIGNS, since=(11, 12, 13))
def clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None, /) -> Tensor:
    """x held between `low` and `high`, either of which may be left out.

    Source: ONNX operator Clip-13.
    """
    bounds = [None if bound is None else bound.item() for bound in (low, high)]
    return x if bounds == [None, None] else torch.clamp(x, *bounds)


@op("Clip", ALIGNS, since=(6,))
def clip_6(
    x: Tensor, /, *, max: float = 3.4028234663852886e38, min: float = -3.4028234663852886e38
) -> Tensor:
    """x held between two attributes. Source: ONNX operator Clip-6."""
    return torch.clamp(x, min, max)


@op("Identity", ALIGNS, since=(1, 13, 14, 16, 19, 21, 23, 24, 25))
def identity(x: Tensor, /) -> Tensor:
    """x itself. Source: ONNX operator Identity-25."""
    return x


def as_identity(node: Node, name: str) -> Node:
    """Return a node with the name and the first output of `node` that hands on a tensor."""
    proto = helper.make_node("Identity", [name], node.outputs[:1])
    return replace(node_of(proto, {"": 13}), name=node.name)


@op("Dropout", ALIGNS, since=(12, 13, 22))
def dropout(
    x: Tensor,
    ratio: Tensor | None = None,
    training_mode: Tensor | None = None,
    /,
    *,
    seed: int | None = None,
) -> tuple[Tensor, Tensor]:
    """x itself, and a mask that keeps all: nothing is dropped at inference.

    Source: ONNX operator Dropout-22.
    """
    if training_mode is not None and bool(training_mode):
        raise UnsupportedAttribute("input 'training_mode' is true; export for inference")
    return x, torch.ones_like(x, dtype=torch.bool)


@op("Dropout", ALIGNS, since=(7, 10))
def dropout_10(x: Tensor, /, *, ratio: float = 0.5) -> tuple[Tensor, Tensor]:
    """x itself, and a mask that keeps all. Source: ONNX operator Dropout-10."""
    return dropout(x)


@op("Dropout", ALIGNS, since=(6,))
def dropout_6(x: Tensor, /, *, is_test: int = 0, ratio: float = 0.5) -> tuple[Tensor, Tensor]:
    """x itself, and a mask that keeps all. Source: ONNX operator Dropout-6."""
    return dropout(x)


@op("Cast", ALIGNS, since=(6, 9, 13, 19, 21, 23, 24, 25, 28))
def cast(x: Tensor, /, *, round_mode: str = "up", saturate: int = 1, to: int) -> Tensor:
    """x as another element type.

    From one floating type to another nothing happens: the mirror has a precision of its own.
    `round_mode` and `saturate` only concern types of 8 bits and less, which are refused.
    Source: ONNX operator Cast-28.
    """
    if to in FLOATS:
        return x if x.is_floating_point() else x.to(getattr(torch, FLOATS[to]))
    if to not in WHOLE:
        raise UnsupportedAttribute(f"to={to}, an element type that the mirror does not have")
    return x.to(getattr(torch, WHOLE[to]))


@op("CastLike", ALIGNS, since=(15, 19, 21, 23, 24, 25))
def cast_like(x: Tensor, like: Kind, /, *, round_mode: str = "up", saturate: int = 1) -> Tensor:
    """x as the element type of another tensor. Source: ONNX operator CastLike-25."""
    if like is None or (x.is_floating_point() and like.is_floating_point()):
        return x
    return x.to(like.dtype)


def _softmax_channels(site: Site) -> How:
    """One axis is mixed; until version 12, all axes from there on."""
    rank = site.rank()
    if rank == 0:
        return Pins("whose input shape is not known")
    since_13 = site.node.version >= 13
    axis = site.attribute("axis", -1 if since_13 else 1) % rank
    return mixed(rank, [axis] if since_13 else range(axis, rank), MIXES)


def _describe(
    name: str,
    compute: Callable[[Tensor, int], Tensor],
    relevance: Relevance = Relevance.SLOPE,
) -> None:
    """Register both forms: over one axis, and over all axes from one on, taken as one."""

    @op(name, _softmax_channels, since=(13,), relevance=relevance)
    def over_axis(x: Tensor, /, *, axis: int = -1) -> Tensor:
        return compute(x, axis)

    @op(name, _softmax_channels, since=(1, 11), relevance=relevance)
    def over_rest(x: Tensor, /, *, axis: int = 1) -> Tensor:
        rows = torch.flatten(x, axis).reshape(*x.shape[:axis], -1)
        return compute(rows, -1).reshape(x.shape)


def _hardmax(x: Tensor, axis: int) -> Tensor:
    """1 at the first largest element of an axis, else 0."""
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)


_describe("Softmax", lambda x, axis: torch.softmax(x, axis))
_describe("LogSoftmax", lambda x, axis: torch.log_softmax(x, axis))
_describe("Hardmax", _hardmax, Relevance.NONE)
