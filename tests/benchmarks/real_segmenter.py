"""The page segmenter of kraken, which has to be installed, and pages whose baselines are known.

onnxprune convert tests/benchmarks/real_segmenter.py:Segmenter --input-shape 3,256,256 -o m.onnx
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from PIL import Image, ImageDraw, ImageFont

from onnxprune.evaluation.runtime import session
from tests.benchmarks.real_samples import WORDS, Feeds, Made, colour

Array = npt.NDArray[Any]

SIDE, PAGES, BASELINES, CELL, HALF = 256, 12, 2, 4, 4
"""Pixels of a page, pages of a half, a channel of the output, its grid, half of a line's width."""


class Segmenter(torch.nn.Module):
    """Logits of starts, ends, baselines and text. Shapes: `[n, 3, H, W]` -> `[n, 4, H/4, W/4]`."""

    def __init__(self) -> None:
        super().__init__()
        import kraken
        from kraken.lib.vgsl import TorchVGSLModel

        self.net = TorchVGSLModel.load_model(Path(kraken.__file__).with_name("blla.mlmodel")).nn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.net(x)[0]
        return found


def layout(_: Path, given: argparse.Namespace) -> Made:
    """Pages of lines; the measure is the overlap of the baselines found with those drawn on.

    Shapes: input `[n, 3, 256, 256]`. Units: 0 to 1, ink is high; IoU of pixels.
    """
    halves = [_pages(np.random.default_rng(seed)) for seed in (0, 1)]
    x, truth = (np.concatenate(each) for each in zip(*halves, strict=True))

    def overlap(model: onnx.ModelProto, unseen: Feeds) -> float:
        net = session(model, device="cpu", threads=1)
        (found,) = net.run(None, {"input": unseen["input"]})
        lines = found[:, BASELINES].repeat(CELL, 1).repeat(CELL, 2) > 0
        wanted = truth[-len(lines) :]
        return float((lines & wanted).sum() / (lines | wanted).sum())

    return Made({"input": x}, overlap, "overlap of baselines")


def _pages(rng: np.random.Generator) -> tuple[Array, Array]:
    """Shapes: -> `[PAGES, 3, 256, 256]`, where baselines are `[PAGES, 256, 256]`."""
    x, masks = [], []
    for _page in range(PAGES):
        paper = rng.integers(170, 256)
        ramp = np.linspace(0, rng.uniform(-30, 30), SIDE)[:, None, None]
        noisy = paper + ramp + rng.normal(0, 6, (SIDE, SIDE, 3))
        image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
        pen, mask = ImageDraw.Draw(image), np.zeros((SIDE, SIDE), bool)
        base = int(rng.integers(30, 60))
        while base < SIDE - 12:
            font = ImageFont.load_default(int(rng.integers(16, 30)))
            left = int(rng.integers(4, 60))
            text = " ".join(rng.choice(WORDS, rng.integers(1, 6)))
            while pen.textlength(text, font) > SIDE - 6 - left:
                text = text[:-2]
            pen.text((left, base), text, font=font, fill=colour(rng, 0, 80), anchor="ls")
            right = int(left + pen.textlength(text, font))
            mask[base - HALF : base + HALF, left:right] = True
            base += int(rng.integers(32, 60))
        x.append(1 - np.asarray(image, np.float32).transpose(2, 0, 1) / 255)
        masks.append(mask)
    return np.stack(x), np.stack(masks)
