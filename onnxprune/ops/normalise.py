"""Normalisations: shift and scale by statistics, of training or of the sample itself.

Channels: where each channel has statistics of its own, channels may go. Where statistics span
several channels, all of them stay, because without one of them the others would be normalised
differently; the user may allow that. A group of channels with statistics of its own may go whole.
Relevance: batch normalisation is a linear layer. So are the others if their deviation is taken as
given: the mean is a sum of the inputs, and a shift takes its own share. Relevance that passed
unchanged would reach inputs that are 0, as a ReLU leaves them, and the layer before would divide it
by next to nothing. Where nothing is centred it does pass unchanged.
Source: Ali et al. 2022 (XAI for transformers: better explanations through conservative
propagation), for the deviation as given.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from onnxprune.errors import UnsupportedAttribute
from onnxprune.ops._op import Relevance, op, without
from onnxprune.ops._torch import functional, torch
from onnxprune.ops.channels import Axes, How, Pins, mixed
from onnxprune.ops.pattern import letters
from onnxprune.ops.site import Edit, Ints, PrunedSite, Site

if TYPE_CHECKING:
    from torch import Tensor

SHARES = "whose statistics span these channels"

SPACE = (0, 2, 3)
"""Axes of images other than that of the channels."""


def _batch_channels(site: Site) -> Axes:
    if site.rank() == 1:  # all of one channel
        return Axes("N, 1, 1, 1, 1 -> N")
    n = "N" if site.attribute("training_mode", 0) else "n"  # then statistics span the batch
    return Axes(f"{n} c *, c, c, c, c -> {n} c *")


_batch = partial(
    op,
    "BatchNormalization",
    _batch_channels,
    relevance=Relevance.LINEAR,
    weights=(1,),
    biases=(2, 3),
)


def batch_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    /,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    training_mode: int = 0,
) -> Tensor:
    """`scale (x - mean) / sqrt(var + epsilon) + bias`, with the statistics of training.

    `momentum` only matters in training.
    Shapes: x `[N, C, *]`, all others `[C]`.
    Source: ONNX operator BatchNormalization-15; `spatial` BatchNormalization-7.
    """
    if training_mode:
        raise UnsupportedAttribute("training_mode=1; export the model for inference")
    if spatial != 1:
        raise UnsupportedAttribute("spatial=0, statistics for every pixel; expected 1")
    if x.ndim == 1:
        return (x - mean) * (scale / torch.sqrt(var + epsilon)) + bias
    return functional.batch_norm(x, mean, var, scale, bias, eps=epsilon)


_batch(since=(14, 15))(without(batch_normalization, "spatial"))
_batch(since=(9,))(without(batch_normalization, "spatial", "training_mode"))
_batch(since=(7,))(without(batch_normalization, "training_mode"))


@op(
    "InstanceNormalization",
    Axes("n c *, c, c -> n c *"),
    since=(6, 22),
    relevance=Relevance.SLOPE,
)
def instance_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, /, *, epsilon: float = 1e-5
) -> Tensor:
    """Normalise each channel of each sample by its own mean and variance.

    Shapes: x `[N, C, *]`, scale and bias `[C]`.
    Source: ONNX operator InstanceNormalization-22.
    """
    space = tuple(range(2, x.ndim))
    return _affine(_standard(x, space, epsilon), scale, bias)


def _group_channels(site: Site) -> Axes:
    """Whole groups may go; if the user allows it, equally many channels of each group."""
    pattern = "n (g I) *, (g I), (g I) -> n (g I) *"
    loose = pattern.replace("g", "G").replace("I", "i")
    return Axes(pattern, SHARES, loose, sizes=dict.fromkeys("gG", site.attribute("num_groups")))


def _restate_groups(site: PrunedSite) -> Edit | None:
    """Count the groups that still have channels."""
    alive = site.kept[0].get(1)
    groups = site.attribute("num_groups")
    if alive is None:
        return None
    return Edit(attributes={"num_groups": int(alive.reshape(groups, -1).any(1).sum())})


@op(
    "GroupNormalization",
    _group_channels,
    since=(21,),
    relevance=Relevance.SLOPE,
    restate=_restate_groups,
    keeps_shape=True,
)
def group_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    /,
    *,
    epsilon: float = 1e-5,
    num_groups: int,
    stash_type: int = 1,
) -> Tensor:
    """Normalise each group of channels of each sample; `stash_type` is a precision.

    Shapes: x `[N, C, *]`, scale and bias `[C]`.
    Source: ONNX operator GroupNormalization-21.
    """
    groups = x.reshape(len(x), num_groups, -1)
    return _affine(_standard(groups, (2,), epsilon).reshape(x.shape), scale, bias)


def _tail_channels(site: Site) -> How:
    """Statistics span the axes from `axis` on; mean and deviation keep the axes before it."""
    rank = site.rank()
    if rank == 0:
        return Pins("whose input shape is not known")
    tail = range(site.attribute("axis", -1) % rank, rank)
    return Axes(_tail_pattern(site, rank, tail, tail), SHARES, _tail_pattern(site, rank, tail, ()))


def _tail_pattern(site: Site, rank: int, tail: range, fixed: Iterable[int]) -> str:
    names = letters(rank, fixed).split()
    operands = [
        " ".join("1" if n == 1 else name for name, n in zip(names[rank - len(s) :], s, strict=True))
        for s in (shape or () for shape in site.shapes[1:])
    ]
    x, statistics = " ".join(names), " ".join([*names[: tail.start], *"1" * len(tail)])
    return f"{', '.join([x, *operands])} -> {x}, {statistics}, {statistics}"


@op("LayerNormalization", _tail_channels, since=(17,), relevance=Relevance.SLOPE)
def layer_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    /,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise over all axes from `axis` on; also the mean and the inverse deviation.

    Shapes: scale and bias broadcast to x.
    Source: ONNX operator LayerNormalization-17.
    """
    over = tuple(range(axis % x.ndim, x.ndim))
    mean = x.mean(over, keepdim=True)
    inverse = torch.rsqrt(x.var(over, correction=0, keepdim=True) + epsilon)
    y = (x - mean) * inverse.detach() * scale
    return (y if bias is None else y + bias), mean, inverse


@op("RMSNormalization", _tail_channels, since=(23,), relevance=Relevance.PASS)
def rms_normalization(
    x: Tensor, scale: Tensor, /, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """Divide by the root mean square over all axes from `axis` on.

    Source: ONNX operator RMSNormalization-23.
    """
    over = tuple(range(axis % x.ndim, x.ndim))
    return x * torch.rsqrt((x * x).mean(over, keepdim=True) + epsilon) * scale


def _space_channels(site: Site) -> How:
    rank = site.rank()
    if rank == 0:
        return Pins("whose input shape is not known")
    return mixed(rank, [axis % rank for axis in site.attribute("axes", SPACE)], SHARES)


@op(
    "MeanVarianceNormalization",
    _space_channels,
    since=(9, 13),
    relevance=Relevance.SLOPE,
    keeps_shape=True,
)
def mean_variance_normalization(x: Tensor, /, *, axes: Ints = SPACE) -> Tensor:
    """Shift and scale to mean 0 and variance 1 over some axes.

    Source: ONNX operator MeanVarianceNormalization-13.
    """
    difference = x - x.mean(axes, keepdim=True)
    return difference / (x.std(axes, correction=0, keepdim=True).detach() + 1e-9)


@op(
    "LRN",
    Axes("n C * -> n C *", "which divides each channel by its neighbours", loose="n c * -> n c *"),
    since=(1, 13),
    relevance=Relevance.PASS,
)
def lrn(
    x: Tensor, /, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int
) -> Tensor:
    """Divide by `(bias + alpha / size * sum of squares over size channels) ** beta`.

    Shapes: x `[N, C, *]`.
    Source: ONNX operator LRN-13.
    """
    squares = functional.pad((x * x).flatten(2), (0, 0, (size - 1) // 2, size // 2))
    near = squares.unfold(1, size, 1).sum(-1).reshape(x.shape)
    return x / (bias + alpha / size * near) ** beta


def _one_channels(site: Site) -> How:
    rank = site.rank()
    if rank == 0:
        return Pins("whose input shape is not known")
    return mixed(
        rank, [site.attribute("axis", -1) % rank], "which divides by a norm over these channels"
    )


@op("LpNormalization", _one_channels, since=(1, 22), relevance=Relevance.PASS)
def lp_normalization(x: Tensor, /, *, axis: int = -1, p: int = 2) -> Tensor:
    """Divide by the norm of one axis, unless it is 0. Source: ONNX operator LpNormalization-22."""
    norm = torch.linalg.vector_norm(x, ord=p, dim=axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / norm)


def _standard(x: Tensor, over: tuple[int, ...], eps: float) -> Tensor:
    mean = x.mean(over, keepdim=True)
    return (x - mean) * torch.rsqrt(x.var(over, correction=0, keepdim=True).detach() + eps)


def _affine(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    column = (-1, *(1,) * (x.ndim - 2))
    return x * scale.reshape(column) + bias.reshape(column)
