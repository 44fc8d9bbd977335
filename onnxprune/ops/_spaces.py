"""Memory that each thread keeps: to ask the system for it takes as long as to fill it does."""

from __future__ import annotations

from collections.abc import Hashable
from threading import local
from typing import TYPE_CHECKING

from onnxprune.ops._torch import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["space"]


class _Spaces(local):
    def __init__(self) -> None:
        self.held: dict[tuple[Hashable, torch.dtype, torch.device], Tensor] = {}


_spaces = _Spaces()


def space(name: Hashable, like: Tensor, count: int) -> Tensor:
    """Return numbers that may be anything, until that name is asked for again.

    Shapes: -> `[count]`.
    """
    key = name, like.dtype, like.device
    held = _spaces.held.get(key)
    if held is None or len(held) < count:
        held = _spaces.held[key] = like.new_empty(count)
    return held[:count]
