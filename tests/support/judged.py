"""A small net of four classes, samples for it, and what ONNX's own reference says of them."""

import numpy as np
import onnx
import onnx.parser
import onnx.reference

from onnxprune.data import Data

RNG = np.random.default_rng(0)
CLASSES = 4
X = RNG.normal(size=(7, 3, 4, 4)).astype(np.float32)
Y = RNG.integers(0, CLASSES, 7)
DATA = Data(X, Y, tuple("abcd"))
WEIGHT = ", ".join(f"{w:.3f}" for w in RNG.normal(size=CLASSES * 3))


def model(body: str, x: str = "float[N, 3, 4, 4] x", y: str = "float[N, K] y") -> onnx.ModelProto:
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    net ({x}) => ({y}) <float[4, 3, 1, 1] w = {{{WEIGHT}}}, float zero = {{0}}> {{ {body} }}"""
    return onnx.parser.parse_model(text)


HEAD = "c = Conv(x, w) m = GlobalAveragePool(c) "
NET, OUTPUT = model(HEAD + "y = Flatten(m)"), "y"


def reference(net: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """The outputs that onnx.reference computes."""
    name = net.graph.input[0].name
    return np.asarray(onnx.reference.ReferenceEvaluator(net).run(None, {name: x})[0])
