"""Products of matrices: with a weight, or of two activations.

Channels: an axis that the product keeps shrinks in the product and in each operand that has it.
The axis that is summed over may shrink if one operand is a weight, because a weight of 0 reads
nothing; in a product of two activations it stays whole.
Relevance: the rules of `onnxprune.relevance.rules`, with the weight modified and the bias silenced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.ops._op import Relevance, op
from onnxprune.ops._torch import torch
from onnxprune.ops.channels import Axes, How, Pins
from onnxprune.ops.pattern import letters
from onnxprune.ops.site import Shape, Site

if TYPE_CHECKING:
    from torch import Tensor

SUMS = "which sums products of two activations over these channels"


def summed(site: Site, *operands: int, letter: str = "i") -> str:
    """Return the letter of the axis that is summed over, a capital where no operand is constant."""
    return letter if any(site.constant[k] for k in operands) else letter.upper()


def product(pattern: str) -> Axes:
    """Return how channels cross a product whose pattern has one capital: the axis summed over."""
    inner = pattern.lower()
    return Axes(pattern, SUMS, inner="" if inner == pattern else inner)


def gemm_channels(site: Site) -> Axes:
    """Return how channels cross a product of two matrices, either of them transposed."""
    i = summed(site, 0, 1)
    left = f"{i} n" if site.attribute("transA", 0) else f"n {i}"
    right = f"o {i}" if site.attribute("transB", 0) else f"{i} o"
    return product(f"{left}, {right}, {broadcast_letters(site, 2, 'n o')} -> n o")


def broadcast_letters(site: Site, index: int, names: str) -> str:
    """The letters of an input that is broadcast to `names`, `1` where its size is."""
    shape = site.shapes[index] if index < len(site.shapes) else None
    if not shape:
        return ""
    last = names.split()[-len(shape) :]
    return " ".join("1" if n == 1 else name for name, n in zip(last, shape, strict=True))


def columns(site: Site, weight: int = 1) -> int | None:
    """Return the last axis of a product with a constant matrix, along which its columns write."""
    shape = site.output_shapes[0]
    is_matrix = site.constant[weight] and site.rank(weight) > 1
    return len(shape) - 1 if shape and is_matrix else None


@op(
    "Gemm",
    gemm_channels,
    since=(7, 9, 11, 13),
    relevance=Relevance.LINEAR,
    weights=(1,),
    biases=(2,),
    columns_along=columns,
)
def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    /,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """Multiply matrices and add: `alpha a b + beta c`.

    Shapes: a `[N, I]`, b `[I, O]` (either transposed on request), c broadcast to `[N, O]`.
    Source: ONNX operator Gemm-13.
    """
    a, b = (a.T if transA else a), (b.T if transB else b)
    y = a @ b
    y = y if alpha == 1.0 else alpha * y
    return y if c is None else y + (c if beta == 1.0 else beta * c)


def matmul_operands(site: Site, left: int = 0, right: int = 1) -> tuple[str, str, str] | None:
    """Return the axes of two operands and their product; None where shapes are not known."""
    a, b = site.shapes[left], site.shapes[right]
    if not a or not b:
        return None
    i = summed(site, left, right, letter="z")
    rows, columns = ["x"] * (len(a) > 1), ["y"] * (len(b) > 1)
    batch = letters(max(len(a), len(b), 2) - 2, ())
    ours, theirs = _batch_letters(batch, a[:-2]), _batch_letters(batch, b[:-2])
    shared = [o if o != "1" else t for o, t in zip(*_aligned(ours, theirs), strict=True)]
    axes = [*ours, *rows, i], [*theirs, i, *columns], [*shared, *rows, *columns]
    first, second, both = map(" ".join, axes)
    return first, second, both


def _batch_letters(batch: str, sizes: Shape) -> list[str]:
    """The letters of the axes before a matrix, `1` where one matrix serves all."""
    names = batch.split()[len(batch.split()) - len(sizes) :]
    return ["1" if n == 1 else name for name, n in zip(names, sizes, strict=True)]


def _aligned(ours: list[str], theirs: list[str]) -> tuple[list[str], list[str]]:
    rank = max(len(ours), len(theirs))
    return ["1"] * (rank - len(ours)) + ours, ["1"] * (rank - len(theirs)) + theirs


def _matmul_channels(site: Site) -> How:
    found = matmul_operands(site)
    if found is None:
        return Pins("whose shapes are not known")
    first, second, both = found
    return product(f"{first}, {second} -> {both}")


@op(
    "MatMul",
    _matmul_channels,
    since=(1, 9, 13),
    relevance=Relevance.LINEAR,
    weights=(1,),
    columns_along=columns,
)
def matmul(a: Tensor, b: Tensor, /) -> Tensor:
    """Multiply matrices over the last two axes; the axes before them are broadcast.

    Shapes: a `[*, N, I]`, b `[*, I, O]` -> `[*, N, O]`; one axis alone is a row or a column.
    Source: ONNX operator MatMul-13.
    """
    return torch.matmul(a, b)


def _einsum_channels(site: Site) -> How:
    """The letters of the equation become those of the pattern."""
    equation = site.attribute("equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    operands = left.split(",")
    plain = left.replace(",", "").isalpha() and left.islower()
    repeated = any(len(set(operand)) < len(operand) for operand in operands)
    if not plain or repeated or None in site.shapes:
        return Pins("whose equation has dots, capitals or repeated letters")
    if not arrow:
        right = "".join(sorted(n for n in set(left) - {","} if left.count(n) == 1))
    pinned = set()
    for name in set(left) - {",", *right}:
        holders = [k for k, operand in enumerate(operands) if name in operand]
        if not any(site.constant[k] for k in holders):
            pinned.add(name)
    spelt = [
        " ".join(
            "1" if n == 1 else _spell(name, pinned) for name, n in zip(o, s or (), strict=True)
        )
        for o, s in zip(operands, site.shapes, strict=True)
    ]
    return product(f"{', '.join(spelt)} -> {' '.join(right)}")


def _spell(name: str, pinned: set[str]) -> str:
    return name.upper() if name in pinned else name


@op("Einsum", _einsum_channels, since=(12, 28), relevance=Relevance.SLOPE)
def einsum(*operands: Tensor, equation: str) -> Tensor:
    """Sum the products of elements with equal letters over the letters that the result lacks.

    Any number of operands, so none is the weight: LRP refuses it.
    Source: ONNX operator Einsum-28.
    """
    return torch.einsum(equation.replace(" ", ""), *operands)
