"""LiteRT (TensorFlow Lite): a .tflite file by onnx2tf, in the order of axes that ONNX has.

onnx2tf moves channels last and tries to move them back where that matters. So that it finds the
way, the model is prepared first: shapes are fixed and known, constants have the rank of what they
meet, transposed convolutions say the size of their kernels, and maps that come out pass through a
flat tensor.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("onnx2tf", "ai_edge_litert", "tensorflow", "tf_keras", "onnx", "onnxruntime")

FITTING = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_./-]*")
"""Names that TensorFlow leaves as they are."""

IMAGES = "calibration_image_sample_data_20x128x128x3_float32.npy"
"""onnx2tf looks for this file where it runs, and fetches it from the network if it is not there."""

BROADCAST = ("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "PRelu")


def convert(model: Path, folder: Path) -> Path:
    """Convert a model by onnx2tf."""
    inputs = prepare(model, Path("prepared.onnx"))
    np.save(IMAGES, np.random.default_rng(0).random((20, 128, 128, 3), np.float32))
    importlib.import_module("onnx2tf").convert(
        input_onnx_file_path="prepared.onnx",
        output_folder_path="saved",
        keep_ncw_or_nchw_or_ncdhw_input_names=inputs,
        output_signaturedefs=True,  # without, names inside that begin with / are refused
        non_verbose=True,
    )
    file = folder / f"{model.stem}.tflite"
    file.write_bytes(Path("saved", "prepared_float32.tflite").read_bytes())
    return file


def prepare(model: Path, path: Path) -> list[str]:
    """Write a model that computes the same, prepared for onnx2tf; return its inputs' names.

    The names stay where TensorFlow can have them; else inputs or outputs are numbered.
    """
    onnx, runtime = (importlib.import_module(name) for name in ("onnx", "onnxruntime"))
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)  # shapes that were computed are constants there
    runtime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    held = onnx.shape_inference.infer_shapes(onnx.load(str(path)))
    constants = {tensor.name for tensor in held.graph.initializer}
    inputs = [value.name for value in held.graph.input if value.name not in constants]
    _rename(held.graph, numbered := _numbered(inputs, "input"))
    _rename(held.graph, _numbered([value.name for value in held.graph.output], "output"))
    _widen_constants(onnx, held.graph)
    _flatten_maps(onnx, held.graph)
    _write_kernel_shapes(onnx, held.graph)
    onnx.save(held, str(path))
    return [numbered.get(name, name) for name in inputs]


def _numbered(names: Sequence[str], what: str) -> dict[str, str]:
    """Other names for all, in their order, where TensorFlow would change one."""
    if all(FITTING.fullmatch(name) for name in names):
        return {}
    return {name: f"{what}_{place}" for place, name in enumerate(names)}


def _rename(graph: Any, new: Mapping[str, str]) -> None:
    """Give tensors other names, also where graphs inside a node read them."""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = new.get(value.name, value.name)
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new.get(name, name) for name in names]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename(inner, new)


def _widen_constants(onnx: Any, graph: Any) -> None:
    """Write the axes of 1 that broadcasting puts before a constant."""
    shapes = {value.name: _shape(value) for value in (*graph.input, *graph.value_info)}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    shapes |= {name: list(tensor.dims) for name, tensor in constants.items()}
    for node in graph.node:
        rank = max((len(shapes.get(name, ())) for name in node.input), default=0)
        for place, name in enumerate(node.input if node.op_type in BROADCAST else ()):
            if name in constants and 0 < len(shapes[name]) < rank:
                values = onnx.numpy_helper.to_array(constants[name])
                wide = values.reshape((1,) * (rank - values.ndim) + values.shape)
                node.input[place] = own = f"{name}_of_{rank}_axes"
                if own not in shapes:
                    graph.initializer.append(onnx.numpy_helper.from_array(wide, own))
                    shapes[own] = list(wide.shape)


def _flatten_maps(onnx: Any, graph: Any) -> None:
    """Let outputs of three axes or more pass through a flat tensor, whose order is ONNX's."""
    for value in [one for one in graph.output if len(_shape(one)) > 2]:
        name, shape = value.name, _shape(value)
        _rename(graph, {name: f"{name}_map"})
        value.name = name
        for given, made, sizes in (
            (f"{name}_map", f"{name}_flat", [-1]),
            (f"{name}_flat", name, shape),
        ):
            wanted = onnx.numpy_helper.from_array(np.array(sizes, np.int64), f"{made}_shape")
            graph.initializer.append(wanted)
            graph.node.append(onnx.helper.make_node("Reshape", [given, wanted.name], [made]))


def _write_kernel_shapes(onnx: Any, graph: Any) -> None:
    """Write the size of the kernel where a transposed convolution leaves it to its weights."""
    sizes = {tensor.name: list(tensor.dims)[2:] for tensor in graph.initializer}
    for node in graph.node:
        said = "kernel_shape" in {one.name for one in node.attribute}
        if node.op_type == "ConvTranspose" and not said and node.input[1] in sizes:
            size = sizes[node.input[1]]
            node.attribute.append(onnx.helper.make_attribute("kernel_shape", size))


def _shape(value: Any) -> list[int]:
    return [axis.dim_value for axis in value.type.tensor_type.shape.dim]


def load(file: Path, threads: int) -> LiteRtSession:
    """Start an interpreter on the CPU."""
    return LiteRtSession(file, threads)


class LiteRtSession:
    """A model on LiteRT; its signature, where it has one, says what goes in and out by name."""

    def __init__(self, file: Path, threads: int) -> None:
        interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter
        self._net = interpreter(str(file), num_threads=threads)
        self._net.allocate_tensors()
        given, made = self._net.get_input_details(), self._net.get_output_details()
        self._inputs, self._outputs = ({one["name"]: one for one in some} for some in (given, made))
        if signed := list(self._net.get_signature_list()):
            signature = self._net.get_signature_runner(signed[0])
            self._inputs = _in_order(signature.get_input_details())
            self._outputs = _in_order(signature.get_output_details())
        self.inputs = [
            (name, one["dtype"], [int(size) for size in one["shape"]])
            for name, one in self._inputs.items()
        ]
        self.outputs = list(self._outputs)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run the model once."""
        for name, one in self._inputs.items():
            self._net.set_tensor(one["index"], np.ascontiguousarray(feeds[name]))
        self._net.invoke()
        return {name: self._net.get_tensor(one["index"]) for name, one in self._outputs.items()}


def _in_order(details: Mapping[str, Any]) -> dict[str, Any]:
    """In the order of the numbers that names end in; a signature has no order."""
    return dict(sorted(details.items(), key=lambda pair: (len(pair[0]), pair[0])))
