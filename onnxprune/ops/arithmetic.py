"""Arithmetic and shapes: operands broadcast against each other, position by position.

Channels align.
Relevance: a sum shares it in proportion to what each operand contributed. A product gives it to the
signal and treats the other operand as a gate (Arras et al. 2017). A maximum gives it to the winner.
Elementwise functions pass it on, as activations do.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, numpy_helper

from onnxprune.errors import UnsupportedAttribute
from onnxprune.ops._op import Relevance, op
from onnxprune.ops._torch import torch
from onnxprune.ops.channels import ALIGNS, FILLS, HOLDS, SHAPES, Pins
from onnxprune.ops.site import FROZEN, CutSite, Edit, Ints, PrunedSite, follows_open, names_channels

if TYPE_CHECKING:
    from torch import Tensor

COUNTS = Pins("whose output size is computed from values")


@op("Add", ALIGNS, since=(7, 13, 14), relevance=Relevance.SHARE)
def add(a: Tensor, b: Tensor, /) -> Tensor:
    """`a + b`. Source: ONNX operator Add-14."""
    return a + b


@op("Sub", ALIGNS, since=(7, 13, 14), relevance=Relevance.SHARE)
def sub(a: Tensor, b: Tensor, /) -> Tensor:
    """`a - b`. Source: ONNX operator Sub-14."""
    return a - b


@op("Sum", ALIGNS, since=(6, 8, 13), relevance=Relevance.SHARE)
def sum_(*terms: Tensor) -> Tensor:
    """The sum of all operands. Source: ONNX operator Sum-13."""
    return reduce(torch.add, terms)


@op("Mean", ALIGNS, since=(6, 8, 13), relevance=Relevance.SHARE)
def mean(*terms: Tensor) -> Tensor:
    """The mean of all operands. Source: ONNX operator Mean-13."""
    return reduce(torch.add, terms) / len(terms)


@op("Mul", ALIGNS, since=(7, 13, 14), relevance=Relevance.GATE)
def mul(a: Tensor, b: Tensor, /) -> Tensor:
    """`a b`. Source: ONNX operator Mul-14."""
    return a * b


@op("Div", ALIGNS, since=(7, 13, 14), relevance=Relevance.GATE)
def div(a: Tensor, b: Tensor, /) -> Tensor:
    """`a / b`; integers are cut towards zero. Source: ONNX operator Div-14."""
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


@op("Max", ALIGNS, since=(6, 8, 12, 13), relevance=Relevance.COPY)
def max_(*operands: Tensor) -> Tensor:
    """The largest operand. Source: ONNX operator Max-13."""
    return reduce(torch.maximum, operands)


@op("Min", ALIGNS, since=(6, 8, 12, 13), relevance=Relevance.COPY)
def min_(*operands: Tensor) -> Tensor:
    """The smallest operand. Source: ONNX operator Min-13."""
    return reduce(torch.minimum, operands)


@op("Where", ALIGNS, since=(9, 16), relevance=Relevance.COPY)
def where(condition: Tensor, a: Tensor, b: Tensor, /) -> Tensor:
    """`a` where the condition holds, else `b`. Source: ONNX operator Where-16."""
    return torch.where(condition, a, b)


@op("Pow", ALIGNS, since=(7, 12, 13, 15))
def pow_(x: Tensor, exponent: Tensor, /) -> Tensor:
    """x to a power, in the type of x. Source: ONNX operator Pow-15."""
    return torch.pow(x, exponent).to(x.dtype)


@op("Mod", ALIGNS, since=(10, 13, 28), relevance=Relevance.NONE)
def mod(a: Tensor, b: Tensor, /, *, fmod: int = 0) -> Tensor:
    """Remainder, with the sign of `b`, or of `a` if `fmod`. Source: ONNX operator Mod-28."""
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


@op("Neg", ALIGNS, since=(6, 13))
def neg(x: Tensor, /) -> Tensor:
    """`-x`. Source: ONNX operator Neg-13."""
    return -x


@op("Abs", ALIGNS, since=(6, 13))
def abs_(x: Tensor, /) -> Tensor:
    """`|x|`. Source: ONNX operator Abs-13."""
    return torch.abs(x)


@op("Sqrt", ALIGNS, since=(6, 13))
def sqrt(x: Tensor, /) -> Tensor:
    """Square root. Source: ONNX operator Sqrt-13."""
    return torch.sqrt(x)


@op("Exp", ALIGNS, since=(6, 13), relevance=Relevance.SLOPE)
def exp(x: Tensor, /) -> Tensor:
    """`e` to the power of x. Source: ONNX operator Exp-13."""
    return torch.exp(x)


@op("Log", ALIGNS, since=(6, 13), relevance=Relevance.SLOPE)
def log(x: Tensor, /) -> Tensor:
    """Natural logarithm. Source: ONNX operator Log-13."""
    return torch.log(x)


@op("Reciprocal", ALIGNS, since=(6, 13))
def reciprocal(x: Tensor, /) -> Tensor:
    """`1 / x`. Source: ONNX operator Reciprocal-13."""
    return torch.reciprocal(x)


@op("Floor", ALIGNS, since=(6, 13))
def floor(x: Tensor, /) -> Tensor:
    """The next whole number below. Source: ONNX operator Floor-13."""
    return torch.floor(x)


@op("Ceil", ALIGNS, since=(6, 13))
def ceil(x: Tensor, /) -> Tensor:
    """The next whole number above. Source: ONNX operator Ceil-13."""
    return torch.ceil(x)


@op("Round", ALIGNS, since=(11, 22))
def round_(x: Tensor, /) -> Tensor:
    """The nearest whole number, the even one of two. Source: ONNX operator Round-22."""
    return torch.round(x)


@op("Sign", ALIGNS, since=(9, 13), relevance=Relevance.NONE)
def sign(x: Tensor, /) -> Tensor:
    """-1, 0 or 1. Source: ONNX operator Sign-13."""
    return torch.sign(x)


def _expand_pins(site: CutSite) -> Pins | None:
    """A size that follows an open axis of x itself can be restated as 1."""
    target, mine = site.ints(1), site.dynamic(site.node.inputs[0])
    if target is None:
        return None
    own = {k: len(mine) - len(target) + k for k in range(len(target))}
    followed = [k for k in follows_open(site, 1) if own[k] < 0 or not mine[own[k]]]
    lead = len(site.output_shapes[0] or ()) - len(target)
    cut = [k for k, n in enumerate(target) if n > 1 and lead + k in site.output_cut[0]]
    return FROZEN if followed and names_channels(site, 1, cut) else None


def _restate_expand(site: PrunedSite) -> Edit | None:
    """Write the predicted size where the target states channels; keep 1 and open axes."""
    predicted, old = site.output_shapes[0], site.before.ints(1)
    if predicted is None or old is None or _fits(site.shapes[0], site.ints(1), predicted):
        return None
    lead = len(predicted) - len(old)
    new = [1 if n == 1 else predicted[lead + k] for k, n in enumerate(old)]
    mine = site.dynamic(site.node.inputs[0])
    for axis, is_open in enumerate(site.dynamic(site.node.outputs[0])):
        if is_open and axis >= lead:
            own = axis - len(predicted) + len(mine)
            if own < 0 or not mine[own]:
                raise UnsupportedAttribute(
                    f"{site.node}: its target shape names a pruned axis and leaves axis {axis} "
                    f"open; expected one or the other; exclude the layers before it"
                )
            new[axis - lead] = 1
    return Edit(inputs={1: np.array(new, np.int64)})


def _fits(shape: Ints | None, target: Ints | None, predicted: Ints) -> bool:
    """Say whether a shape, expanded to a target, is the predicted one."""
    if shape is None or target is None:
        return False
    try:
        return bool(np.broadcast_shapes(shape, target) == predicted)
    except ValueError:
        return False


@op(
    "Expand",
    ALIGNS,
    since=(8, 13),
    relevance=Relevance.COPY,
    restate=_restate_expand,
    pins=_expand_pins,
)
def expand(x: Tensor, shape: Ints, /) -> Tensor:
    """Repeat along axes of size 1, and in front, until x has at least `shape`.

    Source: ONNX operator Expand-13.
    """
    return torch.broadcast_to(x, np.broadcast_shapes(tuple(x.shape), shape))


@op("Shape", SHAPES, since=(1, 13))
def shape_13(x: Tensor, /) -> Tensor:
    """The sizes of all axes. Source: ONNX operator Shape-13."""
    return shape_(x)


@op("Shape", SHAPES, since=(15, 19, 21, 23, 24, 25))
def shape_(x: Tensor, /, *, end: int | None = None, start: int = 0) -> Tensor:
    """The sizes of the axes from `start` up to `end`. Source: ONNX operator Shape-25."""
    return torch.tensor(x.shape[start:end], dtype=torch.int64, device=x.device)


@op("Size", SHAPES, since=(1, 13, 19, 21, 23, 24, 25))
def size_(x: Tensor, /) -> Tensor:
    """How many elements x has. Source: ONNX operator Size-25."""
    return torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


def _array(value: TensorProto) -> Tensor:
    array = numpy_helper.to_array(value)
    if array.dtype.kind not in "biuf":
        array = array.astype(np.float32)  # bfloat16, and what torch has no type for
    return torch.from_numpy(np.array(array))


@op("Constant", HOLDS, since=(12, 13, 19, 21, 23, 24, 25))
def constant(
    *,
    sparse_value: Any = None,
    value: TensorProto | None = None,
    value_float: float | None = None,
    value_floats: tuple[float, ...] | None = None,
    value_int: int | None = None,
    value_ints: Ints | None = None,
    value_string: Any = None,
    value_strings: Any = None,
) -> Tensor:
    """A tensor that the node itself holds. Source: ONNX operator Constant-25."""
    if value is not None:
        return _array(value)
    real = value_float if value_float is not None else value_floats
    if real is not None:
        return torch.tensor(real, dtype=torch.float32)
    whole = value_int if value_int is not None else value_ints
    if whole is not None:
        return torch.tensor(whole, dtype=torch.int64)
    raise UnsupportedAttribute("a value that is sparse or text; expected numbers")


@op("Constant", HOLDS, since=(11,))
def constant_11(*, sparse_value: Any = None, value: TensorProto | None = None) -> Tensor:
    """A tensor that the node itself holds. Source: ONNX operator Constant-11."""
    return constant(sparse_value=sparse_value, value=value)


@op("Constant", HOLDS, since=(1, 9))
def constant_9(*, value: TensorProto) -> Tensor:
    """A tensor that the node itself holds. Source: ONNX operator Constant-9."""
    return _array(value)


@op("ConstantOfShape", FILLS, since=(9, 20, 21, 23, 24, 25))
def constant_of_shape(shape: Tensor, /, *, value: TensorProto | None = None) -> Tensor:
    """One value everywhere. Source: ONNX operator ConstantOfShape-25."""
    fill = torch.zeros(1) if value is None else _array(value)
    return fill.to(shape.device).reshape(()).expand(tuple(shape.tolist()))


@op("Range", COUNTS, since=(11, 27))
def range_(start: Tensor, limit: Tensor, delta: Tensor, /, *, stash_type: int = 1) -> Tensor:
    """Numbers from `start` up to `limit` in steps of `delta`. Source: ONNX operator Range-27."""
    bounds = (start.item(), limit.item(), delta.item())
    return torch.arange(*bounds, dtype=start.dtype, device=start.device)
