"""Spectra, as networks that listen compute them of sound before their first convolution.

Channels: those of other axes than the one that is transformed may go.
"""

from __future__ import annotations

from math import pi
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.ops._op import op
from onnxprune.ops._torch import functional, torch
from onnxprune.ops.activate import FLOATS
from onnxprune.ops.arithmetic import COUNTS
from onnxprune.ops.channels import Axes, How
from onnxprune.ops.linear import UNKNOWN
from onnxprune.ops.pattern import letters, other_letters
from onnxprune.ops.site import Ints, Site

if TYPE_CHECKING:
    from torch import Tensor

TRANSFORMS = "which takes a spectrum over these channels"

WINDOWS = {
    "HannWindow": (0.5, -0.5),
    "HammingWindow": (25 / 46, -21 / 46),
    "BlackmanWindow": (0.42, -0.5, 0.08),
}
"""Amplitudes of the cosines that make each window."""


def _describe(name: str, amplitudes: tuple[float, ...]) -> None:
    @op(name, COUNTS, since=(17,))
    def window(size: Tensor, /, *, output_datatype: int = 1, periodic: int = 1) -> Tensor:
        count = int(size)
        places = torch.arange(count, dtype=torch.float64, device=size.device)
        phase = 2 * pi * places / (count if periodic else count - 1)
        waves = [a * torch.cos(k * phase) for k, a in enumerate(amplitudes)]
        return torch.stack(waves).sum(0).to(getattr(torch, FLOATS[output_datatype]))


for _name, _amplitudes in WINDOWS.items():
    _describe(_name, _amplitudes)


@op("MelWeightMatrix", COUNTS, since=(17,))
def mel_weight_matrix(
    bins: Tensor,
    length: Tensor,
    rate: Tensor,
    low: Tensor,
    high: Tensor,
    /,
    *,
    output_datatype: int = 1,
) -> Tensor:
    """The weights that sum a spectrum of linear frequencies up to one of mel frequencies.

    Shapes: numbers -> `[length / 2 + 1, bins]`.
    Source: ONNX operator MelWeightMatrix-17.
    """
    count, rows = int(bins), int(length) // 2 + 1
    first, last = (2595 * np.log10(1 + float(hertz) / 700) for hertz in (low, high))
    mels = first + np.arange(count + 2) * (last - first) / (count + 2)
    edges = (int(length) + 1) * 700 * (10 ** (mels / 2595) - 1) // int(rate)
    line = np.arange(rows)[:, None]
    left, peak, right = edges[:-2], edges[1:-1], edges[2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        rise, fall = (line - left) / (peak - left), (right - line) / (right - peak)
    found = np.where((line >= left) & (line <= peak), rise, 0.0)
    found = np.where((line >= peak) & (line < right) & (right > peak), fall, found)
    found = np.where((line == peak) & (peak == left), 1.0, found)
    return torch.as_tensor(found, device=bins.device).to(getattr(torch, FLOATS[output_datatype]))


def _spectrum_channels(site: Site) -> How:
    """The axis of the transform, and the last, of real and imaginary parts, stay whole."""
    rank = site.rank()
    if site.shapes[0] is None:
        return UNKNOWN
    by_input = site.node.version >= 20
    given = site.ints(2) if by_input else (site.attribute("axis", 1),)
    if by_input and len(site.node.inputs) < 3:
        given = (-2,)
    if given is None:
        return UNKNOWN
    fixed = {given[0] % rank, rank - 1}
    return Axes(f"{letters(rank, fixed)}, *, * -> {other_letters(rank, fixed)}", why=TRANSFORMS)


@op("DFT", _spectrum_channels, since=(20,))
def dft(
    x: Tensor,
    length: Ints | None = None,
    axis: Ints | None = None,
    /,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> Tensor:
    """The discrete Fourier transform of one axis, or its inverse.

    Shapes: x `[.., n, .., 1 or 2]` -> `[.., m, .., 2]`, real and imaginary parts, or
    `[.., m, .., 1]` where half of a spectrum is made a real signal.
    Source: ONNX operator DFT-20.
    """
    place = (axis[0] if axis else -2) % x.ndim
    signal = _as_complex(x)
    if inverse and onesided:
        size = length[0] if length else 2 * (x.shape[place] - 1)
        real: Tensor = torch.fft.irfft(signal, size, place)
        return real[..., None]
    size = length[0] if length else x.shape[place]
    found = (torch.fft.ifft if inverse else torch.fft.fft)(signal, size, place)
    found = found.narrow(place, 0, size // 2 + 1) if onesided else found
    return torch.view_as_real(found)


@op("DFT", _spectrum_channels, since=(17,))
def dft_17(
    x: Tensor,
    length: Ints | None = None,
    /,
    *,
    axis: int = 1,
    inverse: int = 0,
    onesided: int = 0,
) -> Tensor:
    """The same with the axis in an attribute. Source: ONNX operator DFT-17."""
    return dft(x, length, (axis,), inverse=inverse, onesided=onesided)


def _as_complex(x: Tensor) -> Tensor:
    return torch.view_as_complex(functional.pad(x, (0, 2 - x.shape[-1])).contiguous())


@op("STFT", Axes("N *, *, *, * -> N *", why="which cuts its signal into frames"), since=(17,))
def stft(
    signal: Tensor,
    step: Ints,
    window: Tensor | None = None,
    length: Ints | None = None,
    /,
    *,
    onesided: int = 1,
) -> Tensor:
    """The spectrum of each frame of a signal.

    Shapes: signal `[N, L, 1 or 2]`, window `[length]` -> `[N, frames, bins, 2]`.
    Source: ONNX operator STFT-17.
    """
    size = length[0] if length else 0 if window is None else window.shape[0]
    frames = signal.unfold(1, size, step[0]).movedim(-1, 2)
    frames = frames if window is None else frames * window[:, None]
    return dft(frames, None, (2,), onesided=onesided)
