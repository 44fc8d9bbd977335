"""PaddlePaddle's inference models to ONNX, by paddle2onnx: `.pdmodel`, `.json`, or their folder."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy.typing as npt
import onnx

from onnxprune.errors import ConversionError, MissingPackage
from onnxprune.files import temporary
from onnxprune.plugins import first_line

from ._export import Export, Options, busy, filled
from ._inputs import inputs_of, samples_of

PROGRAMS = ("*.json", "*.pdmodel")
WEIGHTS = ".pdiparams"
OPSET = 13
"""What is asked of paddle2onnx, which would write 7; it takes a newer one where it needs that."""


def export(source: str, options: Options) -> Export:
    """Export a program that `paddle.jit.save` or `save_inference_model` wrote, with its weights.

    Raises:
        ConversionError: no such program, none beside weights, or one that is not converted.
        MissingPackage: paddlepaddle or paddle2onnx is not installed.
    """
    busy("importing Paddle")
    paddle, paddle2onnx = _import()
    program = _program(source)
    weights = program.with_suffix(WEIGHTS)
    if not weights.is_file():
        raise ConversionError(f"{program}: no {weights.name} beside it, which has the weights")
    busy("exporting it, by paddle2onnx")
    try:
        with temporary() as folder:
            written = folder / "model.onnx"
            opset = options.opset or OPSET
            paddle2onnx.export(str(program), str(weights), str(written), opset_version=opset)
            model = onnx.load(written)
        run = _runner(paddle, program, weights)
    except Exception as error:  # an exporter may raise anything
        raise ConversionError(f"{source}: paddle2onnx failed: {first_line(error)}") from error
    taken = {value.name: value.type.tensor_type.shape for value in inputs_of(model.graph)}
    given = samples_of(options.input_shape, options.input_shapes, [*taken], source)
    for name, sizes in given.items():
        for dim, size in zip(taken[name].dim[1:], sizes, strict=False):
            dim.dim_value = size
    image = next(iter(taken.values()))
    shape = [dim.dim_value or None for dim in image.dim]
    return Export(model, run, tuple(filled(shape[1:])), shape[0], by="paddle2onnx")


def _import() -> tuple[ModuleType, ModuleType]:
    os.environ.setdefault("POLYGRAPHY_AUTOINSTALL_DEPS", "0")  # it would run pip by itself
    os.environ.setdefault("GLOG_minloglevel", "3")
    try:
        import paddle
        import paddle2onnx
    except ImportError as error:
        raise MissingPackage(
            f"{error.name} is not installed: pip install 'onnxprune[paddle]', best in an "
            "environment of its own, as paddle2onnx asks for one version of onnx"
        ) from error
    return paddle, paddle2onnx


def _program(source: str) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    found = [one for kind in PROGRAMS for one in sorted(path.glob(kind))]
    found = [one for one in found if one.with_suffix(WEIGHTS).is_file()]
    if len(found) != 1:
        names = ", ".join(one.name for one in found) or "none"
        raise ConversionError(
            f"{source}: expected one .json or .pdmodel with its .pdiparams, found {names}"
        )
    return found[0]


def _runner(paddle: ModuleType, program: Path, weights: Path) -> Any:
    config = paddle.inference.Config(str(program), str(weights))
    config.disable_gpu()
    config.disable_glog_info()
    predictor = paddle.inference.create_predictor(config)

    def run(*inputs: npt.NDArray[Any]) -> Sequence[npt.NDArray[Any]]:
        for name, one in zip(predictor.get_input_names(), inputs, strict=True):
            handle = predictor.get_input_handle(name)
            handle.reshape(one.shape)
            handle.copy_from_cpu(one)
        predictor.run()
        names = predictor.get_output_names()
        return [predictor.get_output_handle(name).copy_to_cpu() for name in names]

    return run
