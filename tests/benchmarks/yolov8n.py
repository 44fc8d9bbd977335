"""Draw scenes of shapes, train Ultralytics' YOLOv8n on them, and export it to ONNX.

    python tests/benchmarks/yolov8n.py -o DIR

Needs `ultralytics` in an environment of its own, and neither a download nor onnxprune. DIR then
holds `best.pt`, `best.onnx`, and three sets in Ultralytics' layout: `train` (400 scenes),
`reference` (60, for the search) and `test` (100, which nobody has seen), each with a `data.yaml`;
the one in DIR itself has `train`, `val: reference` and `test`. Some fifteen minutes on two free
cores.
"""

import argparse
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE = 128
CLASSES = ("disc", "square", "triangle")
SETS = {"train": 400, "reference": 60, "test": 100}
MOST = 5

FINER = dict(
    epochs=22, nbs=16, optimizer="AdamW", lr0=0.0015, lrf=0.02, cos_lr=True, mosaic=0.0, scale=0.3,
    warmup_epochs=0.5,
)  # fmt: skip
"""The second half of the training: a step for every batch, and scenes as they are."""

Box = tuple[int, int, int, int]


def scene(rng: np.random.Generator) -> tuple[Image.Image, list[tuple[int, Box]]]:
    """Draw two to five shapes that hardly cover each other, and return them with their boxes."""
    low, high = rng.integers(0, 256, (2, 3))
    ramp = np.linspace(0, 1, SIDE)[:, None, None]
    canvas = low * (1 - ramp) + high * ramp + rng.normal(0, 10, (SIDE, SIDE, 3))
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    pen, shapes = ImageDraw.Draw(image), []
    for _ in range(rng.integers(2, MOST + 1)):
        box = free_place([held for _, held in shapes], rng)
        if box is None:
            continue
        kind = int(rng.integers(len(CLASSES)))
        draw(pen, CLASSES[kind], box, tuple(int(c) for c in rng.integers(0, 256, 3)))
        shapes.append((kind, box))
    return image, shapes


def free_place(taken: list[Box], rng: np.random.Generator) -> Box | None:
    """A box that touches no other, or None after some tries."""
    for _ in range(20):
        wide, high = (int(v) for v in rng.integers(16, 60, 2))
        x, y = int(rng.integers(0, SIDE - wide)), int(rng.integers(0, SIDE - high))
        apart = (x >= r or x + wide <= left or y >= b or y + high <= t for left, t, r, b in taken)
        if all(apart):
            return x, y, x + wide, y + high
    return None


def draw(pen: ImageDraw.ImageDraw, kind: str, box: Box, colour: tuple[int, ...]) -> None:
    """Draw one shape that fills its box."""
    x1, y1, x2, y2 = box[0], box[1], box[2] - 1, box[3] - 1
    if kind == "disc":
        pen.ellipse((x1, y1, x2, y2), fill=colour)
    elif kind == "square":
        pen.rectangle((x1, y1, x2, y2), fill=colour)
    else:
        pen.polygon([(x1, y2), (x2, y2), (math.floor((x1 + x2) / 2), y1)], fill=colour)


def write_set(folder: Path, count: int, rng: np.random.Generator) -> None:
    """Write images, labels and a data.yaml for them alone."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image, shapes = scene(rng)
        image.save(folder / "images" / f"{number:03}.png")
        lines = []
        for kind, (x1, y1, x2, y2) in shapes:
            row = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
            lines.append(f"{kind} " + " ".join(f"{v / SIDE:.6f}" for v in row))
        (folder / "labels" / f"{number:03}.txt").write_text("\n".join(lines) + "\n")
    names = "".join(f"  {k}: {name}\n" for k, name in enumerate(CLASSES))
    (folder / "data.yaml").write_text(f"path: .\nval: images\nnames:\n{names}")


def write_data(folder: Path) -> Path:
    """Write the three sets and the data.yaml of all."""
    for seed, (name, count) in enumerate(SETS.items()):
        write_set(folder / name, count, np.random.default_rng(seed))
    names = "".join(f"  {k}: {name}\n" for k, name in enumerate(CLASSES))
    path = folder / "data.yaml"
    parts = "train: train/images\nval: reference/images\ntest: test/images\n"
    path.write_text(f"path: {folder.resolve()}\n{parts}names:\n{names}")
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python tests/benchmarks/yolov8n.py")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    data = write_data(given.output)

    from ultralytics import YOLO

    runs = given.output.resolve() / "runs"
    kept = given.output / "best.pt"
    common = dict(
        data=data, imgsz=SIDE, batch=16, device="cpu", workers=0, seed=0, plots=False, amp=False,
        project=runs, exist_ok=True,
    )  # fmt: skip
    YOLO("yolov8n.yaml").train(**common, name="first", epochs=25, pretrained=False)
    YOLO(runs / "first" / "weights" / "best.pt").train(**common, **FINER, name="second")
    shutil.copy(runs / "second" / "weights" / "best.pt", kept)
    best = YOLO(kept)
    best.export(format="onnx", imgsz=SIDE)
    found = best.val(data=data, split="test", imgsz=SIDE, device="cpu", plots=False, project=runs)
    print(f"mAP50-95 {found.box.map:.4f}, of each class {found.box.maps}")


if __name__ == "__main__":
    main()
