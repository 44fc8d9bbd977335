"""Patches: what each output of a layer is a weighted sum of, as the rows of one matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.ops._torch import functional
from onnxprune.ops.node import Node
from onnxprune.ops.site import Ints
from onnxprune.ops.window import Window, pad_space

if TYPE_CHECKING:
    from torch import Tensor


def has_patches(node: Node, kernel: Ints) -> bool:
    """Say whether `patches` knows a layer.

    It knows convolutions of one group and one or two sizes, and dense layers that neither scale nor
    transpose what they read.
    Shapes: kernel, the sizes of the weight beyond its channels.
    """
    op, given = node.op, node.attributes
    if op is None or op.scatters:
        return False
    if op.filters:
        return len(kernel) in (1, 2) and given.get("group", 1) == 1
    return not kernel and given.get("alpha", 1.0) == 1.0 and not given.get("transA", 0)


def patches(node: Node, x: Tensor, kernel: Ints, apart: Ints) -> Tensor:
    """Return what the outputs of a layer see, at one position in `apart` along each size.

    The first position is `apart // 2`. Rows are in the order of the channels and positions of the
    kernel, columns in that of samples and positions of the output.
    Shapes: x `[N, C, *size]`, kernel and apart `[sizes]` -> `[C * positions of the kernel, M]`.
    """
    if not kernel:
        return x.T
    names = ("auto_pad", "dilations", "pads", "strides")
    window = Window(**{name: node.attributes[name] for name in names if name in node.attributes})
    strides, dilations = window.steps(len(kernel))
    widths = window.widths(tuple(x.shape[2:]), kernel)
    shifted = [
        (before - one // 2 * stride, after)
        for (before, after), one, stride in zip(widths, apart, strides, strict=True)
    ]
    x = pad_space(x, shifted)
    steps = tuple(one * stride for one, stride in zip(apart, strides, strict=True))
    if len(kernel) == 1:
        x, kernel, dilations, steps = x[:, :, None], (1, *kernel), (1, *dilations), (1, *steps)
    return functional.unfold(x, kernel, dilations, 0, steps).movedim(1, 0).flatten(1)
