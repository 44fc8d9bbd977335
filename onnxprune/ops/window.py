"""Windows that slide over space: what convolutions and pools have in common.

A forward that takes a `window` is given, by `windowed`, the attributes of ONNX that make one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from onnxprune.errors import UnsupportedAttribute
from onnxprune.ops._torch import functional
from onnxprune.ops.site import Ints

if TYPE_CHECKING:
    from torch import Tensor

Widths = list[tuple[int, int]]
"""Padding (before, after) of each spatial axis."""


@dataclass(frozen=True)
class Window:
    """How a window slides. Source: ONNX operator Conv-22, the attributes of the same names."""

    auto_pad: str = "NOTSET"
    dilations: Ints | None = None
    pads: Ints | None = None
    strides: Ints | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes by name, for another forward."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def steps(self, rank: int) -> tuple[Ints, Ints]:
        """Return strides and dilations for a kernel of `rank` spatial axes.

        Raises: UnsupportedAttribute unless there are 1 to 3.
        """
        if not 1 <= rank <= 3:
            raise UnsupportedAttribute(f"a kernel of {rank} spatial axes; expected 1 to 3")
        return self.strides or (1,) * rank, self.dilations or (1,) * rank

    def given(self, rank: int) -> Widths:
        """Return the padding that `pads` states."""
        pads = self.pads if self.pads and self.auto_pad == "NOTSET" else (0,) * 2 * rank
        return list(zip(pads[:rank], pads[rank:], strict=True))

    def widths(self, size: Ints, kernel: Ints) -> Widths:
        """Return the padding of a map of `size` under `kernel`, both `[rank]`."""
        rank = len(kernel)
        strides, dilations = self.steps(rank)
        if self.auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
            return self.given(rank)
        widths = []
        for n, k, s, d in zip(size, kernel, strides, dilations, strict=True):
            total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            small, large = total // 2, total - total // 2
            widths.append((large, small) if self.auto_pad == "SAME_LOWER" else (small, large))
        return widths


def windowed(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Give a forward with a keyword `window` the attributes of `Window` in its place."""
    signature = inspect.signature(forward)
    own = [p for p in signature.parameters.values() if p.name != "window"]
    names = [field.name for field in fields(Window)]
    shared = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default)
        for field in fields(Window)
    ]

    def run(*inputs: Any, **attributes: Any) -> Any:
        window = Window(**{name: attributes.pop(name) for name in names if name in attributes})
        return forward(*inputs, window=window, **attributes)

    run.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
    run.__doc__, run.__module__ = forward.__doc__, forward.__module__
    return run


def pad_space(x: Tensor, widths: Widths, value: float = 0.0) -> Tensor:
    """Return `x` `[N, C, *size]` with its spatial axes padded; negative widths cut."""
    return functional.pad(x, [width for pair in reversed(widths) for width in pair], value=value)
