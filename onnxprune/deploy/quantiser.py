"""INT8 by onnxruntime's static quantiser: calibrated once, then written with any nodes in float.

Weights are quantised per channel and symmetric, activations per tensor, as pairs of QuantizeLinear
and DequantizeLinear (QDQ), which other runtimes read as well.

Source: onnxruntime.quantization; docs of "Quantize ONNX models", section "U8S8 saturation issue".
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

from onnxprune.data import Data, by_name
from onnxprune.errors import InvalidModel, OnnxPruneError
from onnxprune.evaluation import reason, session
from onnxprune.files import temporary
from onnxprune.graph import copied, fits_message, read_metadata, save_model, write_metadata
from onnxprune.progress import track

PER_CHANNEL_OPSET = 13
"""The first opset in which a scale belongs to each position of an axis."""
CALIBRATING = "calibrating"
"""What a quantiser is busy with, as progress is told."""
QUANTISED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "FakeQuantize")


class Quantiser(Protocol):
    """What writes a model in INT8, with some of its nodes in float."""

    @property
    def float_model(self) -> ModelProto:
        """The model in float, whose nodes have the names that `nodes` says."""
        ...

    @property
    def nodes(self) -> Sequence[str]:
        """The names of the nodes that can be quantised, in the order in which they run."""
        ...

    @property
    def made_by(self) -> str:
        """What quantises, with its version and what it was told."""
        ...

    def __call__(self, kept: Collection[str]) -> ModelProto:
        """Return the model in INT8, but for the nodes that are kept in float."""
        ...


class StaticQuantiser:
    """onnxruntime's static quantiser, with the ranges of the samples.

    `symmetric` activations have a zero point of 0, as TensorRT needs them.
    Raises: InvalidModel for a model that is quantised already, or that the quantiser refuses.
    """

    def __init__(self, model: ModelProto, data: Data, *, symmetric: bool = False) -> None:
        self._tools = importlib.import_module("onnxruntime.quantization")
        self._symmetric, self._narrow = symmetric, saturates()
        self.float_model = prepared(model)
        self._types = self._operators()
        self._ranges = self._calibrate(data)
        self.nodes = tuple(
            node.name
            for node in self.float_model.graph.node
            if node.op_type in self._types and any(name in self._ranges for name in node.output)
        )

    @property
    def made_by(self) -> str:
        version = importlib.import_module("onnxruntime").__version__
        bits = ", weights in 7 bits because this CPU's sums saturate" if self._narrow else ""
        return f"onnxruntime {version}{bits}"

    def _operators(self) -> list[str]:
        """The operators that the quantiser knows."""
        known = importlib.import_module("onnxruntime.quantization.registry")
        return sorted({*known.QDQRegistry, *known.QLinearOpsRegistry})

    def _calibrate(self, data: Data) -> Any:
        """The range of each activation over the samples."""
        tools = self._tools
        with temporary() as folder:
            path = save_model(self.float_model, folder / "float.onnx")
            try:
                observer = tools.create_calibrator(
                    path,
                    self._types,
                    augmented_model_path=str(folder / "observed.onnx"),
                    use_external_data_format=not fits_message(self.float_model),
                )
                for feeds in batches(self.float_model, data):
                    observer.collect_data(_Reader(feeds))
                return observer.compute_data()
            except Exception as error:  # its errors have no root of their own
                raise refused("onnxruntime's calibration", error) from error

    def __call__(self, kept: Collection[str]) -> ModelProto:
        tools, own = self._tools, copied(self.float_model)
        # Its shapes are known: else the quantiser copies it, writes it and reads it again.
        importlib.import_module("onnxruntime.quantization.quant_utils").add_infer_metadata(own)
        kind = tools.QuantType.QInt8 if self._symmetric else tools.QuantType.QUInt8
        options = {"ActivationSymmetric": self._symmetric}
        try:
            writer = tools.QDQQuantizer(
                own,
                True,  # per channel
                self._narrow,
                tools.QuantType.QInt8,
                kind,
                self._ranges,
                [],
                list(kept),
                self._types,
                options,
            )
            writer.quantize_model()
        except Exception as error:  # as above
            raise refused("onnxruntime's quantiser", error) from error
        return labelled(writer.model.model, self.float_model)


class _Reader:
    """One batch, as the calibration takes it."""

    def __init__(self, feeds: dict[str, Any]) -> None:
        self._left = [feeds]

    def get_next(self) -> dict[str, Any] | None:
        return self._left.pop() if self._left else None


def prepared(model: ModelProto) -> ModelProto:
    """Return a model as a quantiser takes it: simplified, with shapes, and a name for each node.

    Raises: InvalidModel where it is quantised already or onnxruntime does not take it.
    """
    if any(node.op_type in QUANTISED for node in model.graph.node):
        raise InvalidModel(
            f"model {model.graph.name!r}: is quantised already; give the one in float"
        )
    model = _of_opset(model)
    tools = importlib.import_module("onnxruntime.quantization")
    with temporary() as folder:
        source = save_model(model, folder / "model.onnx")
        target = folder / "prepared.onnx"
        try:
            tools.quant_pre_process(
                str(source),
                str(target),
                skip_symbolic_shape=True,
                save_as_external_data=not fits_message(model),
                all_tensors_to_one_file=True,
            )
            found = onnx.load(target)
        except Exception as error:  # its errors have no root of their own
            raise refused("onnxruntime's pre-processing", error) from error
    taken = {node.name for node in found.graph.node}
    seen: set[str] = set()
    for number, node in enumerate(found.graph.node):
        if not node.name or node.name in seen:
            free = (f"{node.op_type}_{number}{'_' * k}" for k in range(len(taken) + 1))
            node.name = next(name for name in free if name not in taken)
            taken.add(node.name)
        seen.add(node.name)
    return labelled(found, model)


def labelled(model: ModelProto, like: ModelProto) -> ModelProto:
    """Give a model the metadata of another one, beside what it has."""
    write_metadata(model, read_metadata(like))
    return model


def _of_opset(model: ModelProto) -> ModelProto:
    """Return the model in an opset that knows scales for each channel."""
    opset = next((one.version for one in model.opset_import if not one.domain), 1)
    if opset >= PER_CHANNEL_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, PER_CHANNEL_OPSET)
    except Exception as error:  # it raises whatever its C++ throws
        raise InvalidModel(
            f"model {model.graph.name!r}: is of opset {opset}, INT8 needs {PER_CHANNEL_OPSET}, and "
            f"ONNX cannot convert it ({reason(error)}); export it with a later opset"
        ) from error


def batches(model: ModelProto, data: Data) -> Iterator[dict[str, Any]]:
    """Yield the samples as a session takes them, one by one or by the batch size that is fixed."""
    initial = {tensor.name for tensor in model.graph.initializer}
    value = next(one for one in model.graph.input if one.name not in initial)
    axes = value.type.tensor_type.shape.dim
    size = max(axes[0].dim_value, 1) if axes else 1
    starts = range(0, len(data), size)
    for start in track(CALIBRATING, starts, len(starts)):
        rows = np.arange(start, start + size) % len(data)
        yield by_name(data.x[rows], value.name).feeds


def refused(who: str, error: Exception) -> OnnxPruneError:
    """Return the error to raise where a quantiser fails."""
    if isinstance(error, OnnxPruneError):
        return error
    return InvalidModel(f"{who} refuses the model: {reason(error)}; leave out --int8")


def saturates() -> bool:
    """Return whether INT8 sums overflow on this CPU, as they do on x86 without VNNI.

    Weights of 7 bits avoid that.
    """
    w = np.full((8, 64, 1, 1), 127, np.int8)
    x = np.full((1, 64, 4, 4), 255, np.float32)
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 13]> g (float[1,64,4,4] x) => (float[1,8,4,4] y)
        <float one = {1}, float wide = {8128}, uint8 z = {0}, int8 v = {0}> {
          xq = QuantizeLinear(x, one, z)
          x1 = DequantizeLinear(xq, one, z)
          w1 = DequantizeLinear(w, one, v)
          c = Conv(x1, w1)
          cq = QuantizeLinear(c, wide, z)
          y = DequantizeLinear(cq, wide, z)
        }"""
    )
    model.graph.initializer.append(numpy_helper.from_array(w, "w"))
    (y,) = session(model, device="cpu").run(None, {"x": x})
    return bool(abs(y / (127 * 255 * 64) - 1).max() > 0.01)
