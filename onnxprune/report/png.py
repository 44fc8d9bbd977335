"""Small pictures for a page: samples, and what a network looked at in them."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray

Pixels = npt.NDArray[np.uint8]

LARGEST = 96
"""Pixels along the longer side of a picture on a page."""
FOR, AGAINST = (178, 24, 43), (33, 102, 172)
"""Colours of what speaks for an answer and against it. Source: ColorBrewer, RdBu."""
OUTLINE = (0, 158, 115)
"""The colour of boxes. Source: Okabe and Ito 2008."""


def data_uri(pixels: Pixels) -> str:
    """Return a picture as a data URI.

    Shapes: `[H, W, 3]`.
    """
    height, width = pixels.shape[:2]
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], 1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _chunk(kind: bytes, body: bytes) -> bytes:
    end = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + end


def photo(image: FloatArray) -> Pixels:
    """Return an image as small pixels, from its darkest to its lightest value.

    Shapes: `[H, W, channels]` of 1, 3 or 4 channels -> `[h, w, 3]`.
    """
    small = shrunk(image)
    low, high = float(small.min()), float(small.max())
    scaled = (small - low) / max(high - low, 1e-12)
    colours = scaled[..., :3] if scaled.shape[-1] >= 3 else np.repeat(scaled[..., :1], 3, -1)
    return np.round(255 * colours).astype(np.uint8)


def heat(relevance: FloatArray, image: Pixels) -> Pixels:
    """Return a map of relevance, red for and blue against, over a pale image.

    The strongest colour stands for the 99th percentile of the map.
    Shapes: relevance `[H, W]`, image as `photo` returns it -> as the image.
    """
    small = shrunk(relevance[..., None])[..., 0]
    scale = float(np.percentile(np.abs(small), 99)) or float(np.abs(small).max()) or 1.0
    strength = np.clip(np.abs(small) / scale, 0, 1)[..., None]
    colours = np.where(small[..., None] > 0, np.array(FOR), np.array(AGAINST))
    pale = 205 + 50 * image.mean(-1, keepdims=True) / 255
    mixed = strength * colours + (1 - strength) * pale
    return np.asarray(np.round(mixed), np.uint8)


def outlined(pixels: Pixels, boxes: FloatArray, size: Sequence[int]) -> Pixels:
    """Return a picture with the outlines of boxes, which are in pixels of an image of that size.

    Shapes: pixels `[h, w, 3]`, boxes `[m, 4]` as x1, y1, x2, y2, size `[2]` -> as pixels.
    """
    found = pixels.copy()
    height, width = found.shape[:2]
    scale = np.array([width / size[1], height / size[0]] * 2)
    low, high = (0, 0, 0, 0), (width - 1, height - 1, width - 1, height - 1)
    for box in np.asarray(boxes, np.float64).reshape(-1, 4):
        x1, y1, x2, y2 = np.clip(np.floor(np.nan_to_num(box) * scale), low, high).astype(int)
        found[[y1, y2], x1 : x2 + 1] = OUTLINE
        found[y1 : y2 + 1, [x1, x2]] = OUTLINE
    return found


def shrunk(image: FloatArray) -> FloatArray:
    """Return an image of at most `LARGEST` pixels a side: the means of its blocks.

    Shapes: `[H, W, channels]` -> `[h, w, channels]`.
    """
    found = np.asarray(image, np.float64)
    step = -(-max(found.shape[:2]) // LARGEST)
    for axis in (0, 1):
        starts = np.arange(0, found.shape[axis], step)
        counts = np.diff([*starts, found.shape[axis]])
        shape = [-1 if k == axis else 1 for k in range(3)]
        found = np.add.reduceat(found, starts, axis) / counts.reshape(shape)
    return found
