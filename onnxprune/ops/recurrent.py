"""Recurrent layers, as they read the columns of a feature map in text recognition.

Channels: the features that a layer reads may go. The state stays whole, because it feeds itself.
Relevance: to first order. What onnxruntime rounds while it runs is rounded here, too, and relevance
passes the rounding unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from onnxprune.errors import UnsupportedAttribute
from onnxprune.ops._op import Relevance, op
from onnxprune.ops._torch import torch
from onnxprune.ops.channels import Axes
from onnxprune.ops.quantise import centred, dynamic_quantize_linear
from onnxprune.ops.site import Site

if TYPE_CHECKING:
    from torch import Tensor

    State = tuple[Tensor, ...]
    Cell = Callable[[Tensor, State], State]
    # One step in time: the features of the samples `[N, I]` and the state give the next state.

SQUASHES = ("Tanh", "Relu", "Sigmoid")

Names = tuple[str, ...]
Floats = tuple[float, ...]


def _feature_channels(site: Site, others: int) -> Axes:
    i = "i" if site.constant[1] else "I"
    rest = ", *" * others
    return Axes(
        f"T N {i}, D G {i}{rest} -> *, *, *", why="which reads these channels as steps in time"
    )


def _refuse(
    activations: Names | None, clip: float | None, lengths: Tensor | None, count: int
) -> None:
    """Refuse options that change a cell, and lengths other than `count`.

    Raises: UnsupportedAttribute.
    """
    if activations is not None and set(activations) - {"Sigmoid", "Tanh"}:
        raise UnsupportedAttribute(f"activations={activations}; expected those of the default")
    if clip is not None:
        raise UnsupportedAttribute(f"clip={clip}; expected none")
    if lengths is not None and bool((lengths != count).any()):
        raise UnsupportedAttribute("input 'sequence_lens' holds several lengths; expected one")


def _run(x: Tensor, cell: Cell, state: State, *, backwards: bool) -> tuple[Tensor, State]:
    """Walk over the steps of `x` `[T, N, I]`; return the states h `[T, N, H]` and the last one."""
    found = []
    for one in reversed(x.unbind(0)) if backwards else x.unbind(0):
        state = cell(one, state)
        found.append(state[0])
    return torch.stack(found[::-1] if backwards else found), state


def _walk(
    x: Tensor,
    cells: list[Cell],
    starts: list[Tensor | None],
    hidden: int,
    direction: str,
    layout: int,
) -> tuple[Tensor, ...]:
    """Run every direction; return all states h and the last of each state.

    Shapes: x `[T, N, I]`, starts `[D, N, H]` -> `[T, D, N, H]`, `[D, N, H]`, ..; with `layout` 1
    the samples come first.
    """
    x = x.transpose(0, 1) if layout else x
    zero = x.new_zeros(len(cells), x.shape[1], hidden)
    given = [zero if s is None else s.transpose(0, 1) if layout else s for s in starts]
    runs = [
        _run(x, cell, tuple(s[d] for s in given), backwards=d == 1 or direction == "reverse")
        for d, cell in enumerate(cells)
    ]
    states = torch.stack([h for h, _ in runs], 1)
    last = [torch.stack(each) for each in zip(*(state for _, state in runs), strict=True)]
    if layout:
        return states.permute(2, 0, 1, 3), *(each.transpose(0, 1) for each in last)
    return states, *last


def _lstm_cell(w: Tensor, r: Tensor, b: Tensor | None, p: Tensor | None) -> Cell:
    """Return a cell with gates in the order input, output, forget, cell. Shapes: w `[4 H, I]`."""
    shift = 0.0 if b is None else b[: len(w)] + b[len(w) :]
    peep = (0.0, 0.0, 0.0) if p is None else p.chunk(3)

    def cell(x: Tensor, state: State) -> State:
        h, c = state
        enter, leave, forget, fresh = (x @ w.T + h @ r.T + shift).chunk(4, -1)
        enter, forget = torch.sigmoid(enter + peep[0] * c), torch.sigmoid(forget + peep[2] * c)
        c = forget * c + enter * torch.tanh(fresh)
        return torch.sigmoid(leave + peep[1] * c) * torch.tanh(c), c

    return cell


@op("LSTM", partial(_feature_channels, others=6), since=(7, 14, 22), relevance=Relevance.SLOPE)
def lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    p: Tensor | None = None,
    /,
    *,
    activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None,
    activations: Names | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> tuple[Tensor, ...]:
    """A long short-term memory; also its last output and its last cell.

    Shapes: x `[T, N, I]`, w `[D, 4 H, I]`, r `[D, 4 H, H]`, b `[D, 8 H]`, p `[D, 3 H]`, initial
    states `[D, N, H]` -> `[T, D, N, H]`, twice `[D, N, H]`; D directions.
    Source: ONNX operator LSTM-22.
    """
    _refuse(activations, clip, sequence_lens, x.shape[layout])
    if input_forget:
        raise UnsupportedAttribute(f"input_forget={input_forget}; expected 0")
    cells = [
        _lstm_cell(w[d], r[d], None if b is None else b[d], None if p is None else p[d])
        for d in range(len(w))
    ]
    return _walk(x, cells, [initial_h, initial_c], r.shape[-1], direction, layout)


def _quantised_channels(site: Site) -> Axes:
    """Scales are one for each direction, or for each gate of it."""
    i = "i" if site.constant[1] else "I"
    own = ["D G" if len(site.shapes[k] or ()) == 2 else "D" for k in range(8, 12)]
    rest = ", ".join(["D H G", *"*****", *own])
    return Axes(
        f"T N {i}, D {i} G, {rest} -> *, *, *", why="which reads these channels as steps in time"
    )


def _rounded(x: Tensor) -> Tensor:
    """The value of integers of 8 bits that span the range of `x`, with the gradient of `x`."""
    whole, scale, zero = dynamic_quantize_linear(x.detach())
    return x + (centred(whole, zero).to(x.dtype) * scale - x.detach())


def _rounding(cell: Cell) -> Cell:
    """Return the cell that reads its own last output rounded."""
    return lambda x, state: cell(x, (_rounded(state[0]), *state[1:]))


@op(
    "DynamicQuantizeLSTM",
    _quantised_channels,
    since=(1,),
    relevance=Relevance.SLOPE,
    domain="com.microsoft",
    zero_points={1: 9, 2: 11},
    scales={1: 8, 2: 10},
)
def dynamic_quantize_lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    sequence_lens: Tensor | None,
    initial_h: Tensor | None,
    initial_c: Tensor | None,
    p: Tensor | None,
    w_scale: Tensor,
    w_zero_point: Tensor,
    r_scale: Tensor,
    r_zero_point: Tensor,
    /,
    *,
    activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None,
    activations: Names | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
) -> tuple[Tensor, ...]:
    """An LSTM whose weights are integers; what they are multiplied with is rounded to 8 bits.

    Shapes: as of LSTM, but w `[D, I, 4 H]`, r `[D, H, 4 H]`; scales and zero points `[D]` or
    `[D, 4 H]`.
    Source: onnxruntime, contrib operator DynamicQuantizeLSTM, version 1.
    """

    def real(whole: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        wide = [one.reshape(len(whole), 1, -1) for one in (scale, zero)]
        return (centred(whole, wide[1]).to(x.dtype) * wide[0]).transpose(1, 2)

    _refuse(activations, clip, sequence_lens, len(x))
    if input_forget:
        raise UnsupportedAttribute(f"input_forget={input_forget}; expected 0")
    w, r = real(w, w_scale, w_zero_point), real(r, r_scale, r_zero_point)
    cells = [
        _rounding(_lstm_cell(w[d], r[d], None if b is None else b[d], None if p is None else p[d]))
        for d in range(len(w))
    ]
    return _walk(_rounded(x), cells, [initial_h, initial_c], r.shape[-1], direction, 0)


def _gru_cell(w: Tensor, r: Tensor, b: Tensor | None, linear_before_reset: int) -> Cell:
    """Return a cell with gates in the order update, reset, hidden. Shapes: w `[3 H, I]`."""
    ours, theirs = (w.new_zeros(2, len(w)) if b is None else b.reshape(2, -1)).unbind(0)
    fresh = r.chunk(3)[2]

    def cell(x: Tensor, state: State) -> State:
        (h,) = state
        update, reset, enter = (x @ w.T + ours).chunk(3, -1)
        old = (h @ r.T + theirs).chunk(3, -1)
        update, reset = torch.sigmoid(update + old[0]), torch.sigmoid(reset + old[1])
        past = reset * old[2]
        if not linear_before_reset:
            past = (reset * h) @ fresh.T + theirs.chunk(3)[2]
        return ((1 - update) * torch.tanh(enter + past) + update * h,)

    return cell


@op("GRU", partial(_feature_channels, others=4), since=(7, 14, 22), relevance=Relevance.SLOPE)
def gru(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    /,
    *,
    activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None,
    activations: Names | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Tensor, ...]:
    """A gated recurrent unit; also its last output.

    Shapes: x `[T, N, I]`, w `[D, 3 H, I]`, r `[D, 3 H, H]`, b `[D, 6 H]`, initial state
    `[D, N, H]` -> `[T, D, N, H]`, `[D, N, H]`; D directions.
    Source: ONNX operator GRU-22.
    """
    _refuse(activations, clip, sequence_lens, x.shape[layout])
    cells = [
        _gru_cell(w[d], r[d], None if b is None else b[d], linear_before_reset)
        for d in range(len(w))
    ]
    return _walk(x, cells, [initial_h], r.shape[-1], direction, layout)


def _plain_cell(w: Tensor, r: Tensor, b: Tensor | None, squash: Callable[[Tensor], Tensor]) -> Cell:
    """Return a cell without gates. Shapes: w `[H, I]`."""
    shift = 0.0 if b is None else b[: len(w)] + b[len(w) :]

    def cell(x: Tensor, state: State) -> State:
        return (squash(x @ w.T + state[0] @ r.T + shift),)

    return cell


@op("RNN", partial(_feature_channels, others=4), since=(7, 14, 22), relevance=Relevance.SLOPE)
def rnn(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    /,
    *,
    activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None,
    activations: Names = ("Tanh", "Tanh"),
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
) -> tuple[Tensor, ...]:
    """A plain recurrent layer; also its last output.

    Shapes: x `[T, N, I]`, w `[D, H, I]`, r `[D, H, H]`, b `[D, 2 H]`, initial state `[D, N, H]`
    -> `[T, D, N, H]`, `[D, N, H]`; D directions.
    Source: ONNX operator RNN-22.
    """
    _refuse(None, clip, sequence_lens, x.shape[layout])
    if set(activations) - set(SQUASHES):
        raise UnsupportedAttribute(f"activations={activations}; expected Tanh, Relu or Sigmoid")
    cells = [
        _plain_cell(w[d], r[d], None if b is None else b[d], getattr(torch, activations[d].lower()))
        for d in range(len(w))
    ]
    return _walk(x, cells, [initial_h], r.shape[-1], direction, layout)
