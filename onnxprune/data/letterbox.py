"""Letterbox: an image whole on a canvas of another shape, and where a box in it goes.

Detectors keep the shape of objects: an image is scaled until it fits and the rest is grey. It lies
in the middle (Ultralytics) or in the upper left corner (YOLOX); others stretch it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FITS = ("letterbox", "corner", "stretch")
"""How an image becomes one of another shape."""
GREY = 114
"""The grey beside the image. Source: Ultralytics and YOLOX."""


@dataclass(frozen=True)
class Placement:
    """Where an image lies on its canvas. Units: pixels of the canvas; (x, y), (width, height)."""

    offset: tuple[int, int]
    size: tuple[int, int]
    image: tuple[int, int]

    @classmethod
    def of(cls, image: tuple[int, int], canvas: tuple[int, int], fit: str) -> Placement:
        """Place an image of this width and height on a canvas, by one of `FITS`.

        >>> Placement.of((100, 50), (64, 64), "letterbox")
        Placement(offset=(0, 16), size=(64, 32), image=(100, 50))
        """
        if fit == "stretch":
            return cls((0, 0), canvas, image)
        ratio = min(canvas[0] / image[0], canvas[1] / image[1])
        width, height = (max(1, round(side * ratio)) for side in image)
        left = round((canvas[0] - width) / 2 - 0.1)  # the odd pixel of grey is right and below
        top = round((canvas[1] - height) / 2 - 0.1)
        return cls((left, top) if fit == "letterbox" else (0, 0), (width, height), image)

    def boxes(self, boxes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return where boxes of the image lie on the canvas.

        Shapes: `[m, 4]` -> `[m, 4]`, x1, y1, x2, y2 in pixels.
        """
        scale = np.array([new / old for new, old in zip(self.size, self.image, strict=True)])
        return np.asarray(boxes * np.tile(scale, 2) + np.tile(self.offset, 2), np.float64)


def fitted(image: Any, canvas: tuple[int, int], fit: str) -> Any:
    """Return an image of Pillow on a canvas of this width and height."""
    from PIL import Image

    place = Placement.of(image.size, canvas, fit)
    if image.size != place.size:
        image = image.resize(place.size, Image.Resampling.BILINEAR)
    if place.size == canvas:
        return image
    whole = Image.new(image.mode, canvas, GREY if image.mode == "L" else (GREY,) * 3)
    whole.paste(image, place.offset)
    return whole
