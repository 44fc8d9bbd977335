"""Presets: how the pixels of image files become the numbers that a network was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.checks import Choice
from onnxprune.errors import InvalidValue


@dataclass(frozen=True)
class Preprocess:
    """What the training pipeline did to a pixel: `(pixel / divisor - mean) / std`, per channel.

    Units: `mean` and `std` are those of `pixel / divisor`, in the order the model takes (`bgr`).
    Source: torchvision `ToTensor` and `Normalize`; `keras.applications.imagenet_utils`.
    """

    divisor: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    bgr: bool = False

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Preprocess one image.

        Shapes: `[H, W, C]` -> `[H, W, C]`.
        """
        x = (pixels[..., ::-1] if self.bgr else pixels).astype(np.float32)
        x /= np.float32(self.divisor)
        x -= np.array(self.mean, np.float32)
        x /= np.array(self.std, np.float32)
        return x

    def undone(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the pixels that values were made of, up to rounding.

        Shapes: `[..., C]` -> `[..., C]`.
        """
        unit = x.astype(np.float32) * np.array(self.std, np.float32)
        pixels = (unit + np.array(self.mean, np.float32)) * np.float32(self.divisor)
        return pixels[..., ::-1] if self.bgr else pixels


PRESETS: Mapping[str, Preprocess] = MappingProxyType(
    {
        "unit": Preprocess(divisor=255.0),
        "imagenet": Preprocess(255.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        "caffe": Preprocess(mean=(103.939, 116.779, 123.68), bgr=True),
        "tf": Preprocess(127.5, mean=(1.0,)),
        "raw": Preprocess(),
        "bgr": Preprocess(bgr=True),
    }
)
"""unit: 0 to 1. imagenet: torchvision. caffe: BGR less its mean. tf: -1 to 1. raw: 0 to 255. bgr:
the same in the order of OpenCV."""

EXAMPLE = "mean=0.5,0.5,0.5:std=0.25,0.25,0.25"


def find_preset(name: str) -> Preprocess:
    """Return the preset of a name, or the one that a text such as mean=0.5:std=0.25 describes.

    `mean` and `std` are a number, or one for each channel, of pixels over `divisor`, which is 255
    unless given; `bgr` stands for the order of OpenCV.
    Raises: InvalidValue for a text that says something else.
    """
    if name in PRESETS:
        return PRESETS[name]
    said: dict[str, Any] = {"divisor": (255.0,)}
    for part in name.split(":"):
        key, _, text = part.partition("=")
        try:
            said[key] = part == key or tuple(float(number) for number in text.split(","))
        except ValueError:
            said[""] = part
    mean, std, divisor = said.get("mean", (0.0,)), said.get("std", (1.0,)), said["divisor"]
    bgr = said.pop("bgr", False)
    numbers = (mean, std, divisor)
    if (
        not said.keys() <= {"mean", "std", "divisor"}
        or True in (mean, std, divisor)
        or bgr not in (True, False)
        or len({*map(len, numbers)} - {1}) > 1
        or len(divisor) > 1
        or not np.isfinite(np.concatenate(numbers)).all()
        or min(*std, *divisor) <= 0
    ):
        raise InvalidValue(
            f"preprocess '{name}': expected one of {', '.join(PRESETS)}, or mean and std of the "
            f"pixels over 255, as in {EXAMPLE}, with divisor= and bgr where these differ"
        )
    return Preprocess(divisor[0], mean, std, bgr)


def name_preset(
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    *,
    divisor: float = 255.0,
    bgr: bool = False,
) -> str:
    """Return the name of a preset, or the text by which `find_preset` finds it.

    >>> name_preset((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), name_preset((0.5,), (0.5,))
    ('imagenet', 'tf')
    >>> name_preset((0.5, 0.4, 0.3), (0.25, 0.25, 0.25))
    'mean=0.5,0.4,0.3:std=0.25'
    """
    made = Preprocess(divisor, _short(mean), _short(std), bgr)
    ends = np.array([[0, 0, 0], [255, 255, 255], [0, 100, 200]], np.uint8)
    for name, preset in PRESETS.items():
        if preset.bgr == bgr and np.allclose(preset(ends), made(ends), rtol=1e-4, atol=1e-4):
            return name
    texts = {"mean": made.mean, "std": made.std, "divisor": (divisor,)}
    usual = {"mean": (0.0,), "std": (1.0,), "divisor": (255.0,)}
    said = [
        f"{key}={','.join(f'{number:.6g}' for number in numbers)}"
        for key, numbers in texts.items()
        if numbers != usual[key]
    ]
    return ":".join([*said, *(["bgr"] if bgr else [])])


def _short(numbers: Sequence[float]) -> tuple[float, ...]:
    found = tuple(float(number) for number in numbers)
    return found[:1] if len(set(found)) == 1 else found


class _Preset(Choice):
    """A preset by its name, or by what it does."""

    def _take(self, name: str, value: Any) -> str:
        if isinstance(value, str) and "=" in value:
            find_preset(value)
            return str(value)
        return super()._take(name, value)


PREPROCESS = _Preset(
    of=("auto", *PRESETS),
    help="How pixels of files are scaled; auto is as the model says, else imagenet for three "
    "channels, unit (0 to 1) for one, unless another one fits better. Others are described, as in "
    f"{EXAMPLE}.",
)
