"""Converts networks of a framework, holds them against it, prunes half, and against the masked.

    python -m tests.exporters.frameworks keras      # one line for each network

`.ci/frameworks` runs it in an environment of its own for each framework. The networks have random
weights and random statistics of batch normalisation, so that a layer that is forgotten shows.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import onnxprune
from onnxprune.converters import convert

TOLERANCE, EXACT = 1e-4, 1e-5
"""Of the largest output: against the framework, and against the masked model."""


@dataclass
class Source:
    """What is converted; the framework is guessed unless it is in `options`."""

    title: str
    source: str
    options: dict[str, Any] = field(default_factory=dict)
    says: tuple[str, ...] = ()
    """Keys that the metadata must have."""
    outputs: tuple[str, ...] = ()
    """What the outputs must be called, where the framework says it."""
    inputs: tuple[str, ...] = ()
    """And the inputs, where there are several."""


PREPROCESS = ("onnxprune.preprocess",)


def randomised(network: Any) -> Any:
    """A network of torch with random statistics."""
    import torch

    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return network.eval()


NETS = """
import torch
from torchvision import models

def residual():
    return models.resnet18(weights=None)

def mobilenet():
    return models.mobilenet_v2(weights=None)

class heads(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = models.resnet18(weights=None, num_classes=5)

    def forward(self, x):
        y = self.net(x)
        return {"kind": y, "age": y.relu()}
"""

HEADS = """
from flax import nnx

class Heads(nnx.Module):
    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 12, (3, 3), rngs=rngs)
        self.conv = nnx.Conv(12, 12, (3, 3), rngs=rngs)
        self.dense = nnx.Linear(12, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.stem(x)), (2, 2), strides=(2, 2))
        y = self.dense(nnx.relu(self.conv(x)).mean((1, 2)))
        return {"kind": y, "age": nnx.relu(y)}

net = Heads(nnx.Rngs(0))
"""


def of_torch(folder: Path) -> Iterator[Source]:
    import torch

    from onnxprune.converters.torchvision import import_torchvision

    models = import_torchvision().models
    (folder / "nets.py").write_text(NETS, encoding="utf-8")
    for name, model in (("residual", "resnet18"), ("mobilenet", "mobilenet_v2")):
        network = randomised(getattr(models, model)(weights=None))
        torch.save({"state_dict": network.state_dict()}, folder / f"{name}.pth")
        yield Source(
            f"{model}, a function and a checkpoint",
            f"{folder}/nets.py:{name}",
            {"weights": f"{folder}/{name}.pth", "input_shape": (3, 64, 64)},
        )
        batch = {0: torch.export.Dim("batch")}
        x = torch.zeros(2, 3, 64, 64)
        program = torch.export.export(network, (x,), dynamic_shapes=(batch,))
        torch.export.save(program, folder / f"{name}.pt2")
        yield Source(f"{model}, .pt2", f"{folder}/{name}.pt2")
        torch.jit.save(torch.jit.trace(network, x), folder / f"{name}.pt")
        yield Source(f"{model}, TorchScript", f"{folder}/{name}.pt", {"input_shape": (3, 64, 64)})
    heads = ("kind", "age")
    asked = {"input_shape": (3, 64, 64), "framework": "pytorch"}
    yield Source("resnet18, a dict of two", f"{folder}/nets.py:heads", asked, outputs=heads)


def of_torchvision(folder: Path) -> Iterator[Source]:
    import torch

    from onnxprune.converters.torchvision import import_torchvision

    models = import_torchvision().models
    for name in ("resnet18", "mobilenet_v2"):
        network = randomised(models.get_model(name, num_classes=7))
        torch.save(network.state_dict(), folder / f"{name}.pth")
        options = {"framework": "torchvision", "weights": f"{folder}/{name}.pth"}
        yield Source(f"{name}, own weights of 7 classes", name, options)


def of_timm(folder: Path) -> Iterator[Source]:
    import torch

    from onnxprune.converters.timm import import_timm

    timm = import_timm()
    for name in ("resnet18", "mobilenetv3_small_050"):
        torch.save(randomised(timm.create_model(name)).state_dict(), folder / f"{name}.pth")
        options = {"framework": "timm", "weights": f"{folder}/{name}.pth"}
        yield Source(f"{name}, own weights", name, options, PREPROCESS)


def of_huggingface(folder: Path) -> Iterator[Source]:
    from onnxprune.converters.torchvision import import_torchvision

    import_torchvision()
    import transformers as hf

    names = {"id2label": {k: f"class {k}" for k in range(5)}}
    small = hf.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 48], depths=[2, 2, 2], layer_type="basic", **names
    )
    tiny = hf.MobileNetV2Config(depth_multiplier=0.5, image_size=96, **names)
    for title, kind, config in (
        ("ResNet", hf.ResNetForImageClassification, small),
        ("MobileNetV2", hf.MobileNetV2ForImageClassification, tiny),
    ):
        place = folder / title
        randomised(kind(config)).save_pretrained(place)
        processor = {
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5, 0.4, 0.3],
            "image_std": [0.25, 0.25, 0.25],
            "size": {"height": 96, "width": 96},
        }
        (place / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
        says = (*PREPROCESS, "names")
        yield Source(f"{title}, save_pretrained", str(place), {}, says, ("logits",))
    three = {"conv_dim": (16, 16, 16), "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 3)}
    heads = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_labels": 4}
    ears = hf.Wav2Vec2Config(**three, **heads, intermediate_size=48, num_feat_extract_layers=3)
    hf.Wav2Vec2ForSequenceClassification(ears).eval().save_pretrained(folder / "sound")
    asked = {"input_shape": (4000,)}
    yield Source("Wav2Vec2, of sound", f"{folder}/sound", asked, outputs=("logits",))


def of_ultralytics(folder: Path) -> Iterator[Source]:
    from onnxprune.converters.ultralytics import _import

    made = _import()
    for name in ("yolov8n", "yolo11n", "yolov8n-cls"):
        yolo = made.YOLO(f"{name}.yaml")
        randomised(yolo.model)
        yolo.save(str(folder / f"{name}.pt"))
        options = {"trust": True, "input_shape": (3, 128, 128)}
        yield Source(f"{name}, .pt", f"{folder}/{name}.pt", options, (*PREPROCESS, "names"))


def of_keras(folder: Path) -> Iterator[Source]:
    from onnxprune.converters.keras import _import

    keras = _import()
    from tests.exporters import make_keras

    backend = keras.config.backend()
    for name in ("residual", "mobilenet_v2"):
        keras.utils.set_random_seed(0)
        model = getattr(make_keras, name)()
        make_keras.randomise(model)
        for suffix in ("keras", "h5"):
            model.save(folder / f"{name}.{suffix}")
            yield Source(f"{name}, .{suffix}, on {backend}", f"{folder}/{name}.{suffix}")
    make_keras.two_heads().save(folder / "heads.keras")
    title = f"a dict of two, .keras, on {backend}"
    names = {"outputs": ("age", "kind"), "inputs": ("image", "numbers")}
    yield Source(title, f"{folder}/heads.keras", **names)


def of_keras_on_jax(folder: Path) -> Iterator[Source]:
    os.environ["KERAS_BACKEND"] = "jax"
    yield from of_keras(folder)


def of_tensorflow(folder: Path) -> Iterator[Source]:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    yield from of_keras(folder)
    import tensorflow as tf

    from tests.exporters import make_keras

    for name in ("residual", "mobilenet_v2"):
        model = getattr(make_keras, name)()
        make_keras.randomise(model)
        model.export(str(folder / name), verbose=False)
        yield Source(f"{name}, SavedModel", str(folder / name))
        lite = tf.lite.TFLiteConverter.from_keras_model(model).convert()
        (folder / f"{name}.tflite").write_bytes(lite)
        yield Source(f"{name}, .tflite", f"{folder}/{name}.tflite")
    heads = make_keras.two_heads()
    heads.export(str(folder / "heads"), verbose=False)
    yield Source("a dict of two, SavedModel", str(folder / "heads"), outputs=("age", "kind"))
    lite = tf.lite.TFLiteConverter.from_saved_model(str(folder / "heads")).convert()
    (folder / "heads.tflite").write_bytes(lite)
    yield Source("a dict of two, .tflite", f"{folder}/heads.tflite", outputs=("age", "kind"))
    grouped = make_keras.grouped()
    grouped.save(folder / "grouped.keras")
    yield Source("grouped, .keras, on tensorflow", f"{folder}/grouped.keras")
    grouped.export(str(folder / "grouped"), verbose=False)
    yield Source("grouped, SavedModel", str(folder / "grouped"))


def of_jax(folder: Path) -> Iterator[Source]:
    for name in ("residual", "mobilenet", "dense"):
        text = f"from tests.exporters.make_jax import NETS\nnet = NETS[{name!r}]\n"
        (folder / f"{name}_net.py").write_text(text, encoding="utf-8")
        yield Source(
            f"{name}, {'linen' if name == 'dense' else 'nnx'}",
            f"{folder}/{name}_net.py:net",
            {"input_shape": (20, 20, 3), "framework": "jax"},
        )
    (folder / "heads_net.py").write_text(HEADS, encoding="utf-8")
    asked = {"input_shape": (20, 20, 3), "framework": "jax"}
    yield Source("a dict of two, nnx", f"{folder}/heads_net.py:net", asked, outputs=("age", "kind"))


def of_paddle(folder: Path) -> Iterator[Source]:
    import paddle

    from tests.exporters import make_paddle

    for name in ("basic", "mobilenet_v2"):
        network = make_paddle.NETS[name][0]()
        network.eval()
        make_paddle.randomise(network)
        spec = paddle.static.InputSpec([None, 3, 16, 16], "float32", "x")
        paddle.jit.save(network, str(folder / name / "inference"), input_spec=[spec])
        written = next((folder / name).glob("inference.*[!s]"))
        yield Source(f"{name}, {written.suffix}", str(written))
        yield Source(f"{name}, the folder", str(folder / name))


FRAMEWORKS = {
    "pytorch": (of_torch, ("torch",)),
    "torchvision": (of_torchvision, ("torch", "torchvision")),
    "timm": (of_timm, ("torch", "timm")),
    "huggingface": (of_huggingface, ("torch", "transformers")),
    "ultralytics": (of_ultralytics, ("torch", "ultralytics")),
    "keras": (of_keras, ("keras", "torch")),
    "keras-jax": (of_keras_on_jax, ("keras", "jax", "jax2onnx")),
    "tensorflow": (of_tensorflow, ("keras", "tensorflow", "tf2onnx")),
    "jax": (of_jax, ("jax", "flax", "jax2onnx")),
    "paddle": (of_paddle, ("paddlepaddle", "paddle2onnx", "onnx")),
}
"""By extra: what is converted, and whose versions count."""


class Heard(logging.Handler):
    """The difference from the framework, which `convert` logs."""

    difference = float("nan")

    def emit(self, record: logging.LogRecord) -> None:
        if "is within" in record.msg:
            _, self.difference, _ = record.args  # type: ignore[misc]


def outputs(model: onnx.ModelProto, rng: np.random.Generator) -> list[np.ndarray[Any, Any]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {}
    for one in session.get_inputs():
        shape = [size if isinstance(size, int) else 2 for size in one.shape]
        feeds[one.name] = rng.standard_normal(shape, dtype=np.float32)
    return list(session.run(None, feeds))


def pruned_half(path: Path) -> tuple[float, float]:
    """The share of the filters that went, and the difference from the masked model."""
    options: Any = {"control": "one-shot", "criterion": "magnitude", "compensate": "none"}
    result = onnxprune.prune(path, rate=0.5, **options)
    masked = onnxprune.apply(path, result.plan, masked=True)
    known = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    kept = {entry.key: entry.value for entry in result.model.metadata_props}
    assert known.items() <= kept.items(), f"{path}: metadata went: {known.keys() - kept.keys()}"
    both = (outputs(model, np.random.default_rng(0)) for model in (result.model, masked))
    differences = [
        float(np.abs(small - full).max() / max(np.abs(full).max(), 1e-9))
        for small, full in zip(*both, strict=True)
        if full.size
    ]
    return result.report["rate"], max(differences)


def check(source: Source, folder: Path) -> dict[str, Any]:
    """Convert, compare, prune, compare."""
    heard, logger = Heard(), logging.getLogger("onnxprune.converters")
    logger.addHandler(heard)
    logger.setLevel(logging.INFO)
    started = time.monotonic()
    path = convert(source.source, folder / "model.onnx", **source.options)
    seconds = time.monotonic() - started
    logger.removeHandler(heard)
    model = onnx.load(path)
    known = {entry.key: entry.value for entry in model.metadata_props}
    for ports, asked in ((model.graph.output, source.outputs), (model.graph.input, source.inputs)):
        called = {value.name for value in ports}  # the order is the exporter's
        assert called == {*(asked or called)}, f"{source.title}: {called}"
    assert {*source.says, "onnxprune.source"} <= known.keys(), f"{source.title}: {known.keys()}"
    rate, difference = pruned_half(path)
    assert heard.difference <= TOLERANCE, f"{source.title}: {heard.difference}"
    assert difference <= EXACT, f"{source.title}: {difference}"
    return {
        "network": source.title,
        "difference": heard.difference,
        "pruned": rate,
        "masked": difference,
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("framework", choices=FRAMEWORKS)
    sources, packages = FRAMEWORKS[parser.parse_args().framework]
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for source in sources(folder):
            try:
                line = check(source, folder)
            except Exception as error:
                logging.exception(source.title)
                line, failed = {"network": source.title, "failed": str(error)}, failed + 1
            sys.stdout.write(json.dumps(line | versions(packages)) + "\n")
            sys.stdout.flush()
    sys.exit(failed)


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


if __name__ == "__main__":
    main()
