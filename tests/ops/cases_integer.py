"""Cases of quantised tensors: fake quantisation, integer kernels, onnxruntime's own operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ops.registry import POSITIVE, SCALAR, W, X, case

STEP, POINT = SCALAR(0.1), np.uint8(120)


def integers(*shape: int, dtype: Any = np.int8) -> Any:
    """Random integers of 8 bits."""
    info, rng = np.iinfo(dtype), np.random.default_rng(len(shape) + sum(shape))
    return rng.integers(max(info.min, -127), min(info.max, 127), shape).astype(dtype)


_Q, _DQ = "q = QuantizeLinear(x, t, p); ", "DequantizeLinear(q, t, p)"
for _opset in (10, 13, 19, 21, 23):
    case(f"{_Q} y = {_DQ}", 4, opset=_opset, x=X, t=STEP, p=POINT)
case("q = QuantizeLinear(x, t); y = DequantizeLinear(q, t)", 4, x=X, t=STEP)
case(f"{_Q} y = {_DQ}", 4, x=X, t=STEP.reshape(1), p=POINT.reshape(1))
_EACH = "q = QuantizeLinear<axis=-3>(x, t, p); y = DequantizeLinear<axis=1>(q, t, p)"
case(_EACH, 4, x=X, t=POSITIVE, p=integers(4))
case("q = QuantizeLinear<axis=2>(x, t, p); r = Relu(x)", 4, x=X, t=np.abs(W(5)), p=integers(5))
_BLOCKS = "q = QuantizeLinear<axis=1, block_size=2>(x, t, p);"
_BLOCKS += "y = DequantizeLinear<axis=1, block_size=2>(q, t, p)"
_BLOCKED = {"t": np.abs(W(1, 2, 5, 5)), "p": integers(1, 2, 5, 5)}
case(_BLOCKS, 2, opset=21, x=X, batch=1, **_BLOCKED)
_LESS = _BLOCKS.replace("block_size=2", "block_size=3")
case(_LESS, 0, opset=21, x=X, batch=1, why="whose last block is shorter", **_BLOCKED)
_WHOLE = {"t": np.abs(W(1, 1, 5, 5)), "p": integers(1, 1, 5, 5)}
case(_BLOCKS.replace("block_size=2", "block_size=4"), 4, opset=21, x=X, batch=1, **_WHOLE)
_WIDE = "q = QuantizeLinear<output_dtype=5>(x, t); y = DequantizeLinear(q, t)"
case(_WIDE, 4, opset=21, x=X, t=SCALAR(0.001))
_DYNAMIC = "q, t, p = DynamicQuantizeLinear(x); "
case(_DYNAMIC + "y = DequantizeLinear(q, t, p)", 4, x=X)
_WEIGHT = "v = DequantizeLinear<axis=0>(w, s, z); c = DequantizeLinear<axis=0>(b, s); "
_PER_CHANNEL = {
    "w": integers(6, 4, 3, 3),
    "s": np.abs(W(6)) / 100,
    "b": integers(6, dtype=np.int32),
}
case(_WEIGHT + "y = Conv(x, v, c)", 10, x=X, z=np.zeros(6, np.int8), **_PER_CHANNEL)
case(_WEIGHT + "y = Conv(x, v, c)", 10, x=X, z=integers(6), **_PER_CHANNEL)
_WEIGHT = "v = DequantizeLinear(w, s, z); y = "
_PER_TENSOR = {"w": integers(6, 4, 3, 3, dtype=np.uint8), "s": SCALAR(0.01), "z": np.uint8(50)}
case(_WEIGHT + "Conv(x, v)", 10, x=X, **_PER_TENSOR)
case(_WEIGHT + "ConvTranspose(x, v)", 10, x=(6, 5, 5), **_PER_TENSOR)
_SCALES = {"s": np.abs(W(4)) / 100, "z": integers(4)}  # along the axis 1 that is not written
case(_WEIGHT + "Conv(x, v)", 10, x=X, w=integers(6, 4, 1, 1), **_SCALES)
case("f = Flatten(x); " + _WEIGHT + "Gemm(f, v)", 4, x=X, w=integers(100, 4), **_SCALES)
_FAKE = "q = QuantizeLinear<axis=0>(w, s, z); v = DequantizeLinear<axis=0>(q, s, z); y = Conv(x, v)"
case(_FAKE, 10, x=X, w=W(6, 4, 1, 1), s=np.abs(W(6)) / 100, z=integers(6))

_SIDES = {"t": STEP, "p": POINT, "u": SCALAR(0.4), "r": np.uint8(110)}
_QCONV = "c = QLinearConv{}(q, t, p, w, s, z, u, r, b); y = DequantizeLinear(c, u, r)"
_OURS = {**_SIDES, **_PER_CHANNEL}
case(_Q + _QCONV.format("<pads=[1, 1, 1, 1]>"), 10, x=X, z=integers(6), **_OURS)
case(_Q + _QCONV.format("").replace(", b", ""), 10, x=X, **_SIDES, **_PER_TENSOR)
_OURS["w"] = integers(6, 2, 3, 3)
case(_Q + _QCONV.format("<group=2>"), 5, x=X, z=integers(6), **_OURS)
_OURS["w"] = integers(6, 1, 3, 3)
case(_Q + _QCONV.format("<group=6>"), 6, x=(6, 5, 5), z=integers(6), **_OURS)
_ICONV = "c = ConvInteger(q, w, p, z); f = Cast<to=1>(c); y = Mul(f, t)"
case(_Q + _ICONV, 10, x=X, t=STEP, p=POINT, w=integers(6, 4, 2, 2), z=np.int8(5))
_QPRODUCT = "c = QLinearMatMul(q, t, p, w, s, z, u, r); y = DequantizeLinear(c, u, r)"
_OURS = {"w": integers(4, 6), "s": SCALAR(0.01), "z": np.int8(3)}
case(_Q + _QPRODUCT, 4, x=(4,), **_SIDES, **_OURS)
_OURS = {"w": integers(4, 6), "s": np.abs(W(6)) / 100, "z": np.zeros(6, np.int8)}
case(_Q + _QPRODUCT, 4, x=(4,), **_SIDES, **_OURS)
_IPRODUCT = "c = MatMulInteger(q, w, p, z); f = Cast<to=1>(c); y = Mul(f, t)"
case(_Q + _IPRODUCT, 4, x=(4,), t=STEP, p=POINT, w=integers(4, 6), z=integers(6))
case(
    _Q + "c = MatMulInteger(w, q, z, p); y = Cast<to=1>(c)",
    4,
    x=X,
    t=STEP,
    p=POINT,
    w=integers(6, 5),
    z=np.int8(3),
)

# Quantised by onnxruntime
_MS = "com.microsoft.QLinear"
_OUT = {"u": SCALAR(0.2371), "r": np.uint8(110)}
_IN = {"t": SCALAR(0.0931), "p": POINT, **_OUT}
_BACK = "y = DequantizeLinear(c, u, r)"
_TWO = "k = QuantizeLinear(z, t, p); c = " + _MS
for _name in ("Add", "Mul"):
    case(f"{_Q}{_TWO}{_name}(q, t, p, k, t, p, u, r); {_BACK}", 4, x=X, z=X, **_IN)
    case(f"{_Q}{_TWO}{_name}(q, t, p, k, t, p, u, r); {_BACK}", 4, x=X, z=(4, 1, 1), **_IN)
case(f"{_Q}c = {_MS}Sigmoid(q, t, p, u, r); {_BACK}", 4, x=X, **_IN)
case(f"{_Q}c = {_MS}LeakyRelu<alpha=0.2>(q, t, p, u, r); {_BACK}", 4, x=X, **_IN)
_SOFTMAX = f"{_MS}Softmax<axis={{}}, opset={{}}>(q, t, p, u, r); {_BACK}"
_PART = {"t": SCALAR(0.0931), "p": POINT, "u": SCALAR(1 / 256), "r": np.uint8(0)}
for _since in (12, 13):
    case(f"{_Q}c = {_SOFTMAX.format(3, _since)}", 4, x=X, **_PART)
    case(
        f"{_Q}c = {_SOFTMAX.format(1, _since)}",
        0,
        x=X,
        why="which normalises over these channels",
        **_PART,
    )
_CHOICE = f"m = Greater(x, z); {_TWO}Where(m, q, t, p, k, t, p, u, r); {_BACK}"
case(_Q + _CHOICE, 4, x=X, z=X, **_IN)
_JOIN = f"{_TWO}Concat<axis=1>(u, r, k, t, p, q, t, p); {_BACK}"
case(_Q + _JOIN, 7, x=X, z=(3, 5, 5), **_IN)
case(f"{_Q}c = {_MS}GlobalAveragePool(q, t, p, u, r); {_BACK}", 4, x=X, **_IN)
_MEAN = "AveragePool<kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 0]>"
case(f"{_Q}c = {_MS}{_MEAN}(q, t, p, u, r); {_BACK}", 4, x=X, **_IN)
_DENSE = "com.microsoft.QGemm<transB=1, alpha=0.5>(q, t, p, w, s, z, b"
_UNITS = {"w": integers(6, 4), "s": np.abs(W(6)) / 100, "z": integers(6)}
_UNITS["b"] = integers(6, dtype=np.int32)
case(f"{_Q}c = {_DENSE}, u, r); {_BACK}", 4, x=(4,), **_IN, **_UNITS)
case(f"{_Q}y = {_DENSE})", 4, x=(4,), t=SCALAR(0.0931), p=POINT, **_UNITS)

_LSTM = "s = Squeeze<axes=[2]>(x); t = Transpose<perm=[2, 0, 1]>(s); y = com.microsoft."
_LSTM += 'DynamicQuantizeLSTM<direction="bidirectional", hidden_size=3>(t, w, r, b, , , , , u, z, '
_GATES = {"w": integers(2, 4, 12), "r": integers(2, 3, 12), "b": W(2, 24)}
_GATES |= {"u": np.array([0.01, 0.02], np.float32), "v": np.array([0.02, 0.01], np.float32)}
for _zero in (np.zeros(2, np.int8), np.array([3, -4], np.int8)):
    case(f"{_LSTM}v, o)", 4, opset=12, x=(4, 1, 5), z=_zero, o=_zero, **_GATES)

# What onnxruntime's optimiser writes
_FUSED = "y = com.microsoft.FusedConv<pads=[1, 1, 1, 1], {}>(x, w, b{})"
_KERNEL = {"x": X, "w": W(6, 4, 3, 3), "b": W(6)}
for _how in ("Relu", "Sigmoid", "Tanh"):
    case(_FUSED.format(f'activation="{_how}"', ""), 10, **_KERNEL)
_ENDS = {"LeakyRelu": [0.3], "Clip": [-0.5, 0.5], "HardSigmoid": [0.3, 0.4]}
for _how, _numbers in _ENDS.items():
    _end = f'activation="{_how}", activation_params={_numbers}'
    case(_FUSED.format(_end, ""), 10, **_KERNEL)
case(_FUSED.format('activation="Relu"', ", z"), 10, z=(6, 5, 5), **_KERNEL)
_KERNEL["w"] = W(6, 2, 3, 3)
case(_FUSED.format('activation="Relu", group=2', ""), 5, **_KERNEL)
_FUSED = "y = com.microsoft.FusedGemm<transB=1, {}>(x, w, b)"
case(_FUSED.format('activation="Relu", alpha=0.5'), 4, x=(4,), w=W(5, 4), b=W(5))
_LEAKY = 'activation="LeakyRelu", activation_alpha=0.3'
case(_FUSED.format(_LEAKY), 4, x=(4,), w=W(5, 4), b=W(5))
case("y = com.microsoft.FusedMatMul<alpha=0.5, transB=1>(x, w)", 4, x=(4,), w=W(6, 4))
case("y = com.microsoft.FusedMatMul<transA=1>(x, z)", 4, x=X, z=X)
case("y = com.microsoft.FusedMatMul<transB=1>(x, z)", 4, x=X, z=X)
for _name in ("Gelu", "FastGelu", "QuickGelu"):
    case(f"y = com.microsoft.{_name}(x)", 4, x=X)
for _name in ("BiasGelu", "FastGelu"):
    case(f"y = com.microsoft.{_name}(x, b)", 4, x=X, b=W(5))
_SKIP = "t = Transpose<perm=[0, 2, 1]>(x); u = Transpose<perm=[0, 2, 1]>(z); "
_SKIP += "n = com.microsoft.SkipLayerNormalization<epsilon=0.001>({}); "
_SKIP += "y = Transpose<perm=[0, 2, 1]>(n)"
_SHIFTS = {"g": W(4), "h": W(4), "b": W(4)}
case(_SKIP.format("t, u, g, h, b"), 0, x=(4, 5), z=(4, 5), why="statistics span", **_SHIFTS)
_SKIP = "y, , , s = com.microsoft.SkipLayerNormalization<epsilon=0.001>(x, z, g)"
case(_SKIP, 4, x=(4, 5), z=(4, 5), g=W(5))
