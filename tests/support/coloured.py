"""Images of six colours in class folders, and a network that tells them apart by its weights."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, numpy_helper
from PIL import Image

from onnxprune.data.presets import PRESETS, Preprocess
from tests.support.models import model

COLOURS = np.array(
    [[90, 120, 150], [150, 120, 90], [120, 150, 90], [90, 90, 90], [150, 150, 150], [130, 90, 140]]
)
"""Of each class, near each other, so that pixels scaled otherwise all look alike."""
NAMES = ("blue", "brown", "green", "dark", "light", "violet")
SIZE = 8


def pixels(each: int, seed: int = 0) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images of each colour and their classes. Shapes: `[n, H, W, 3]`, `[n]`."""
    y = np.repeat(np.arange(len(COLOURS)), each)
    noise = np.random.default_rng(seed).normal(0, 8, (len(y), SIZE, SIZE, 3))
    return np.clip(COLOURS[y][:, None, None] + noise, 0, 255).astype(np.uint8), y


def folder(path: Path, each: int = 6, names: tuple[str, ...] | None = None) -> Path:
    """Write the images into class folders; by default these sort as the classes do."""
    x, y = pixels(each)
    names = names or tuple(f"{k}_{name}" for k, name in enumerate(NAMES))
    for row, (image, k) in enumerate(zip(x, y, strict=True)):
        place = path / names[k]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{row:03}.png")
    return path


def network(preset: str | Preprocess = "unit", *, shape: str = "N,3,8,8") -> ModelProto:
    """A network that gives the nearest colour, of pixels that a preset has scaled."""
    scale = PRESETS[preset] if isinstance(preset, str) else preset
    found = model(
        f"""
        coloured (float[{shape}] x) => (float[N,6] y)
        <float[16,3,1,1] w, float[16,16,1,1] v, float[16,6] u, float[6] c> {{
          a = Conv(x, w)
          b = Conv(a, v)
          p = GlobalAveragePool(b)
          f = Flatten(p)
          y = Gemm(f, u, c)
        }}
        """
    )
    means = scale(COLOURS[:, None, None].astype(np.uint8)).reshape(6, 3).astype(np.float64)
    weights = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in found.graph.initializer}
    seen = weights["v"][..., 0, 0] @ weights["w"][..., 0, 0]
    unmixed = np.linalg.pinv(seen)  # back to the three channels of the pixels
    scatter = np.square(means - means.mean(0)).mean()
    weights["u"] = (2 * means @ unmixed / scatter).T
    weights["c"] = -np.square(means).sum(1) / scatter
    for tensor in found.graph.initializer:
        array = weights[tensor.name].astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return found
