"""Ultralytics' networks to ONNX: a `.pt` file, or the `.yaml` of an architecture."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy.typing as npt
import onnx

from onnxprune.errors import ConversionError, MissingPackage
from onnxprune.files import temporary
from onnxprune.plugins import first_line

from ._checkpoints import TRUST
from ._export import Export, Options, busy, facts
from ._inputs import samples_of
from ._torch import runner
from .torchvision import import_torchvision

BY = "Ultralytics' exporter"


def export(source: str, options: Options) -> Export:
    """Export the network of a `.pt` file, which is a pickle, so only a trusted one is loaded.

    The model takes one picture at once, of the size that it was trained on unless given. Its
    metadata are those that Ultralytics writes.

    Raises:
        ConversionError: a file that is not trusted, or that Ultralytics does not load or export.
        MissingPackage: ultralytics is not installed.
    """
    if not source.endswith((".yaml", ".yml")) and not options.trust:
        raise ConversionError(
            f"{source}: files of Ultralytics are pickles, which can run any code when they are "
            f"loaded; {TRUST}"
        )
    if options.weights is not None:
        raise ConversionError(f"{source}: has its own weights; give no --weights")
    busy("importing Ultralytics")
    made = _import()
    busy(f"exporting it, by {BY}")
    try:
        with temporary() as folder:
            place = folder / Path(source).name
            if Path(source).is_file():  # the exporter writes beside the file
                shutil.copyfile(source, place)
            network = made.YOLO(str(place) if place.exists() else source)
            network.ckpt_path = str(place)
            if getattr(network.model, "pt_path", None) or not place.exists():
                network.model.pt_path = str(place)
            written = network.export(**_asked(network, source, options))
            model = onnx.load(written)
    except Exception as error:  # it raises anything
        raise ConversionError(f"{source}: {BY} failed: {first_line(error)}") from error
    lasting = {entry.key: entry.value for entry in model.metadata_props if entry.key != "date"}
    onnx.helper.set_model_props(model, lasting)  # the same file makes the same model
    sizes = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    run = _runner(network.model.float().eval(), model)
    known = facts(preprocess="unit")
    return Export(model, run, tuple(sizes[1:]), sizes[0] or None, known, by=BY)


def _import() -> ModuleType:
    os.environ.setdefault("YOLO_AUTOINSTALL", "False")  # it would run pip by itself
    os.environ.setdefault("YOLO_VERBOSE", "False")
    try:
        import_torchvision()
        import ultralytics
    except ImportError as error:
        raise MissingPackage(
            "ultralytics is not installed: pip install 'onnxprune[ultralytics]'"
        ) from error
    module: ModuleType = ultralytics
    return module


def _asked(network: Any, source: str, options: Options) -> dict[str, Any]:
    """What the exporter is asked for; the size of pictures is the network's own unless given."""
    asked: dict[str, Any] = {"format": "onnx", "simplify": False, "device": "cpu"}
    if options.opset is not None:
        asked["opset"] = options.opset
    given = samples_of(options.input_shape, options.input_shapes, ["images"], source)
    if given:
        asked["imgsz"] = list(given["images"][1:])
    elif size := network.overrides.get("imgsz"):
        asked["imgsz"] = size
    return asked


def _runner(network: Any, model: onnx.ModelProto) -> Any:
    """The network in torch; of what it returns, the tensors that are the model's outputs."""
    shapes = [
        tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in model.graph.output
    ]
    run = runner(network)

    def outputs(x: npt.NDArray[Any]) -> Sequence[npt.NDArray[Any]]:
        found = list(run(x))
        chosen = [next((one for one in found if one.shape == shape), None) for shape in shapes]
        return [one for one in chosen if one is not None]

    return outputs
