"""Models as ONNX text, so that the reader sees the graph, with random weights filled in."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import ModelProto, numpy_helper

HEADER = '<ir_version: 8, opset_import: ["": 17]>'


def model(text: str, *, header: str = HEADER, seed: int = 0) -> ModelProto:
    """Parse a graph; tensors that it declares and no node writes become random constants."""
    parsed = onnx.parser.parse_model(f"{header}\n{text}")
    rng = np.random.default_rng(seed)
    written = {name for node in parsed.graph.node for name in node.output}
    given = {tensor.name for tensor in parsed.graph.initializer}
    kept = []
    for value in parsed.graph.value_info:
        if value.name in written | given:
            kept.append(value)
            continue
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        weights = rng.uniform(0.2, 1.0, shape) * rng.choice([-1, 1], shape)
        if value.name.startswith("var"):
            weights = np.abs(weights)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        parsed.graph.initializer.append(numpy_helper.from_array(weights.astype(dtype), value.name))
    del parsed.graph.value_info[:]
    parsed.graph.value_info.extend(kept)
    onnx.checker.check_model(parsed, full_check=True)
    return parsed


def run(proto: ModelProto, *inputs: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Run a model on onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_inputs()]
    return list(session.run(None, dict(zip(names, inputs, strict=True))))


def images(proto: ModelProto, batch: int, seed: int = 1) -> npt.NDArray[np.float32]:
    """Return random images that fit the model's first input."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    value = next(v for v in proto.graph.input if v.name not in constants)
    shape = [dim.dim_value or 8 for dim in value.type.tensor_type.shape.dim]
    return np.random.default_rng(seed).normal(size=(batch, *shape[1:])).astype(np.float32)


def relative_error(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Largest absolute difference, relative to the largest value expected."""
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-12))


RESIDUAL = """
g (float[N,3,8,8] x) => (float[N,2] y)
<float[6,3,1,1] w1, float[6,6,3,3] w2, float[6,6,1,1] w3, float[6,2] v> {
  a = Conv(x, w1)
  b = Conv<pads=[1,1,1,1]>(a, w2)
  c = Relu(b)
  d = Conv(c, w3)
  s = Add(a, d)
  p = GlobalAveragePool(s)
  f = Flatten(p)
  y = Gemm(f, v)
}
"""
