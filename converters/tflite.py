"""TensorFlow Lite files to ONNX, by tf2onnx."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy.typing as npt

from onnxprune.errors import ConversionError
from onnxprune.plugins import first_line

from ._export import Export, Options, busy
from .tensorflow import import_tensorflow

SEVERAL = 3
"""Samples that a file is tried with, where it leaves their number open."""


def export(source: str, options: Options) -> Export:
    """Export a `.tflite` file. It takes any number of samples at once, unless the file fixes one.

    Raises:
        ConversionError: no such file, or one that tf2onnx does not convert.
        MissingPackage: tensorflow or tf2onnx is not installed.
    """
    tf, tf2onnx = import_tensorflow()
    if not Path(source).is_file():
        raise ConversionError(f"{source}: no such file; give the path of a saved model")
    if options.weights or options.input_shape or options.input_shapes:
        raise ConversionError(f"{source}: has weights and shapes of its own; give none")
    busy("exporting it, by tf2onnx")
    try:
        interpreter = _interpreter(tf, source)
        model, _ = tf2onnx.convert.from_tflite(source, opset=options.opset)
    except Exception as error:  # an exporter may raise anything
        raise ConversionError(f"{source}: tf2onnx failed: {first_line(error)}") from error
    shape = [int(size) for size in interpreter.get_input_details()[0]["shape"]]

    def run(*inputs: npt.NDArray[Any]) -> Sequence[npt.NDArray[Any]]:
        _resize(interpreter, [one.shape for one in inputs])
        for place, one in zip(interpreter.get_input_details(), inputs, strict=True):
            interpreter.set_tensor(place["index"], one)
        interpreter.invoke()
        return [interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()]

    batch = None if options.dynamic_batch and _takes_any(interpreter) else shape[0]
    return Export(model, run, tuple(shape[1:]), batch, by="tf2onnx", names=_names(interpreter))


def _takes_any(interpreter: Any) -> bool:
    """Whether the file leaves the number of samples open, and each output has as many."""
    places = interpreter.get_input_details()
    before = [tuple(one["shape"]) for one in places]
    if any(list(one["shape_signature"][:1]) != [-1] for one in places):
        return False
    try:
        _resize(interpreter, [(SEVERAL, *shape[1:]) for shape in before])
        found = [list(one["shape"][:1]) for one in interpreter.get_output_details()]
    except (RuntimeError, ValueError):  # a shape inside is written for one sample
        found = []
    _resize(interpreter, before)
    return bool(found) and all(one == [SEVERAL] for one in found)


def _resize(interpreter: Any, shapes: Sequence[tuple[int, ...]]) -> None:
    """Let the inputs have these shapes."""
    for place, shape in zip(interpreter.get_input_details(), shapes, strict=True):
        if tuple(place["shape"]) != tuple(shape):
            interpreter.resize_tensor_input(place["index"], shape)
    interpreter.allocate_tensors()


def _interpreter(tf: ModuleType, source: str) -> Any:
    interpreter = tf.lite.Interpreter(model_path=source)
    interpreter.allocate_tensors()
    return interpreter


def _names(interpreter: Any) -> list[str]:
    """What the first signature calls the outputs; nothing where the file has none."""
    signatures = interpreter.get_signature_list()
    if not signatures:
        return []
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    named = {one["index"]: name for name, one in runner.get_output_details().items()}
    return [named.get(one["index"], "") for one in interpreter.get_output_details()]
