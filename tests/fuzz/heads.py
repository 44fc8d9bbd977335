"""Heads of detectors: outputs of any names and shapes, read as those of a head or refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.detection import (
    HEAD_NAMES,
    HEADS,
    centre_maps,
    find_detector,
    level_classes,
    map_classes,
    parse_anchors,
)
from tests.detection import encoders
from tests.fuzz.judging import Kind, lay_file

SIZES = (0, 1, 2, 3, 4, 5, 6, 7, 10, 32, 33, 64, 65, 85, 252, 300, None)
NAMES = ("heat", "hm", "wh", "offset", "scores", "boxes", "logits", "pred_boxes", "output", "a b")
MOST = 1 << 16
"""Numbers of an output."""


def outputs_of(make: Callable[..., Any]) -> dict[str, list[int]]:
    """The names and shapes of what an encoder writes."""
    return {name: list(array.shape) for name, array in make(encoders.scenes(2)).items()}


def seeds() -> list[bytes]:
    """Outputs as each encoder of the tests writes them, recognised, and read as asked for."""
    found = []
    for make in ENCODERS:
        given = {"head": "auto", "size": list(encoders.SIZE), "classes": encoders.CLASSES}
        found.append({**given, "outputs": outputs_of(make), "anchors": ""})
    return [json.dumps(one).encode() for one in found]


ENCODERS = (
    *(encoders.yolov8, encoders.yolov8_turned, encoders.yolov5, encoders.yolox),
    *(encoders.end_to_end, encoders.rt_detr, encoders.detr, encoders.ssd, encoders.nms),
    *(encoders.yolov8_maps, encoders.yolov5_maps, encoders.picodet, encoders.nanodet),
    *(encoders.nanodet_plus, encoders.centernet, encoders.centerface),
)


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Change one thing: a head, a name, an axis, how many outputs, classes or pixels there are."""
    given = json.loads(data)
    outputs: dict[str, list[int | None]] = given["outputs"]
    change = rng.randrange(7)
    if change == 0:
        given["head"] = rng.choice([*HEADS, "auto"])
    elif change == 1:
        given["classes"] = rng.choice((0, 1, 2, 80))
    elif change == 2:
        given["size"] = [rng.choice((1, 3, 32, 63, 64, 96, 128)) for _ in range(2)]
    elif change == 3:
        outputs[rng.choice(NAMES)] = [rng.choice(SIZES) for _ in range(rng.randrange(6))]
    elif change == 4:
        given["anchors"] = rng.choice(("[10,13,16,30]", "[[1,2],[3,4]]", "[0]" * 3, "[1e308]*18"))
    elif outputs:
        name = rng.choice(list(outputs))
        shape = outputs.pop(name)
        if change == 5 and shape:
            shape[rng.randrange(len(shape))] = rng.choice(SIZES)
        outputs[rng.choice((name, *NAMES))] = shape
    return json.dumps(given).encode()


def run(path: Path, out: Path) -> object:
    """Find the head, and read outputs with it whose open axes have some size."""
    given = json.loads(path.read_bytes())
    shapes: dict[str, tuple[int | None, ...]] = {
        name: tuple(shape) for name, shape in given["outputs"].items()
    }
    rng = np.random.default_rng(len(path.read_bytes()))
    fixed = {
        name: [2 if not k else size if size is not None else 7 for k, size in enumerate(shape)]
        for name, shape in shapes.items()
    }
    closed = {name: [size or 0 for size in shape] for name, shape in shapes.items()}
    guessed = centre_maps(closed), level_classes(closed), map_classes(closed)
    size, anchors = (given["size"][0], given["size"][1]), parse_anchors(given["anchors"])
    asked = {"head": given["head"], "anchors": anchors}
    detector = find_detector(shapes, size, given["classes"], **asked)
    assert detector.head in HEAD_NAMES
    if any(np.prod(shape) > MOST for shape in fixed.values()):
        return guessed
    outputs = {
        name: (rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4)).astype(np.float32)
        for name, shape in fixed.items()
    }
    return guessed, detector(outputs), detector.units(outputs), detector.shows(outputs)


KINDS = (Kind("heads", seeds, run, lay_file(".json"), mutate),)
