"""Functions of angles, circular and hyperbolic: each element of the output depends on the same one.

Channels align; relevance passes through unchanged, as through an activation.
Source: ONNX operators Acos-22 to Tan-22.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.ops._op import op
from onnxprune.ops._torch import torch
from onnxprune.ops.channels import ALIGNS

if TYPE_CHECKING:
    from torch import Tensor

CIRCULAR, HYPERBOLIC = (7, 22), (9, 22)
VERSIONS = {
    **dict.fromkeys(("Sin", "Cos", "Tan", "Asin", "Acos", "Atan"), CIRCULAR),
    **dict.fromkeys(("Sinh", "Cosh", "Asinh", "Acosh", "Atanh"), HYPERBOLIC),
}


def _describe(name: str, since: tuple[int, ...]) -> None:
    @op(name, ALIGNS, since=since)
    def of_angle(x: Tensor, /) -> Tensor:
        compute = getattr(torch, name.lower())
        result: Tensor = compute(x)
        return result


for _name, _since in VERSIONS.items():
    _describe(_name, _since)
