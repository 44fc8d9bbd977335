"""The cases: a few nodes of ONNX text each, and how many of the channels around them may go.

What `case` builds of a line is told in `tests.ops.registry`.
"""

from __future__ import annotations

import numpy as np

from tests.ops import cases_fold, cases_integer, cases_place, cases_write
from tests.ops.registry import CASES, POSITIVE, SCALAR, W, X, case

__all__ = ["CASES", "cases_fold", "cases_integer", "cases_place", "cases_write"]

# Activations and other functions of one element
UNARY = (
    "Relu LeakyRelu Elu Selu Celu Sigmoid HardSigmoid HardSwish Softplus Softsign Tanh Erf "
    "ThresholdedRelu Identity Dropout Neg Abs Exp Floor Ceil Round Sign"
)
ANGLES = "Sin Cos Tan Atan Sinh Cosh Asinh"
for _name in f"{UNARY} {ANGLES}".split():
    case(f"y = {_name}(x)", 4, x=X)
for _name in ("Asin", "Acos", "Atanh"):
    case(f"a = Softsign(x); y = {_name}(a)", 4, x=X)
case("a = Cosh(x); y = Acosh(a)", 4, x=X)
case("y = Relu(x)", 4, opset=6, x=X)
case("y = Dropout(x)", 4, opset=7, x=X)
case("y = Dropout<is_test=1>(x)", 4, opset=6, x=X)
case("y, z = Dropout(x)", 4, x=X)
case("y = LeakyRelu<alpha=0.3>(x)", 4, x=X)
case("y = Mish(x)", 4, opset=18, x=X)
case("y = Gelu(x)", 4, opset=20, x=X)
case('y = Gelu<approximate="tanh">(x)', 4, opset=20, x=X)
case("y = Swish<alpha=1.5>(x)", 4, opset=24, x=X)
case("y = SwiGLU<alpha=1.5>(x, z)", 4, opset=28, x=X, z=X)
case("y = Elu<alpha=0.5>(x)", 4, opset=22, x=X)
case("y = PRelu(x, slope)", 4, x=X, slope=W(4, 1, 1))
case("y = PRelu(x, slope)", 4, x=X, slope=W(1))
case("y = Clip(x, low, high)", 4, x=X, low=SCALAR(-0.5), high=SCALAR(0.5))
case("y = Clip(x, , high)", 4, x=X, high=SCALAR(0.5))
case("y = Clip<min=-0.5, max=0.5>(x)", 4, opset=10, x=X)
case("a = Abs(x); y = Sqrt(a)", 4, x=X)
case("a = Exp(x); y = Log(a)", 4, x=X)
case("a = Cast<to=7>(x); b = Cast<to=11>(a); y = Cast<to=1>(b)", 4, x=X)
case("l = Constant<value_float = 1.0>(); y = CastLike(x, l)", 4, x=X, opset=19)
case("y = Shrink<lambd=0.4, bias=0.3>(x)", 4, x=X)

# Softmax: free across the axis, fixed along it
for _name in ("Softmax", "LogSoftmax", "Hardmax"):
    case(f"y = {_name}<axis=1>(x)", 0, x=X, why="which normalises over these channels")
    case(f"y = {_name}<axis=2>(x)", 4, x=X)
    case(f"y = {_name}<axis=2>(x)", 4, opset=11, x=X)
    case(f"y = {_name}<axis=1>(x)", 0, opset=11, x=X, why=f"feeds {_name}")

# Arithmetic
for _name in ("Add", "Sub", "Mul", "Sum", "Mean", "Max", "Min"):
    case(f"y = {_name}(x, z)", 4, x=X, z=X)
    case(f"y = {_name}(x, z)", 4, opset=8, x=X, z=X)
case("y = Sum(x, z, c)", 4, x=X, z=X, c=W(1, 4, 1, 1))
case("y = Add(x, z)", 4, x=X, z=(1, 5, 5))
case("y = Mul(x, z)", 4, x=X, z=(4, 1, 1))
case("m = Mul(x, c); y = Add(m, d)", 4, opset=8, x=X, c=W(4, 1, 1), d=W(1, 4, 1, 1))
case("u = Unsqueeze<axes=[1, 2]>(c); m = Mul(x, u); y = Add(m, u)", 4, opset=8, x=X, c=W(4))
case("y = Add(x, c)", 4, x=X, c=W(5))
case("a = Exp(x); y = Pow(a, e)", 4, x=X, e=W(4, 1, 1))
case("a = Exp(z); y = Mod<fmod=1>(x, a)", 4, x=X, z=X)
case("a = Exp(z); y = Div(x, a)", 4, x=X, z=X)
case("a = Exp(z); y = Reciprocal(a)", 4, z=X)
case("y = Reciprocal(x)", 4, x=X, masked=False)
case("y = Div(x, z)", 4, x=X, z=X, masked=False)
case("a = Abs(x); y = Log(a)", 4, x=X, masked=False)
case("b = Greater(x, z); y = Where(b, x, z)", 4, x=X, z=X)
case("y = Where(b, x, z)", 4, x=X, z=X, b=np.array([[[1]], [[0]], [[1]], [[0]]], np.bool_))
for _name in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
    case(f"y = {_name}(x, z)", 4, x=X, z=X)
for _name in ("And", "Or", "Xor"):
    case(f"a = Greater(x, c); b = Less(x, c); d = Not(b); y = {_name}(a, d)", 4, x=X, c=W(1))
case("i = Reciprocal(x); y = IsInf<detect_negative=0>(i)", 4, x=X)
case("a = Log(x); y = IsNaN(a)", 4, x=X)
_BITS = "a = Cast<to=6>(x); b = Cast<to=6>(z); "
for _name in ("And", "Or", "Xor"):
    case(f"{_BITS}y = Bitwise{_name}(a, b)", 4, opset=18, x=X, z=X)
case("a = Cast<to=6>(x); y = BitwiseNot(a)", 4, opset=18, x=X)
case("a = Cast<to=6>(x); y = BitCast<to=12>(a)", 4, opset=26, x=X)
case('a = Cast<to=2>(x); y = BitShift<direction="LEFT">(a, c)', 4, x=X, c=np.array([3], np.uint8))
case(  # squeeze and excite
    "g = GlobalAveragePool(x); a = Conv(g, v); r = Relu(a); b = Conv(r, w); s = HardSigmoid(b);"
    "y = Mul(x, s)",
    6,
    x=X,
    v=W(2, 4, 1, 1),
    w=W(4, 2, 1, 1),
)
case("y = Expand(x, s)", 4, x=(4, 1, 1), s=[1, 4, 5, 5])
case("y = Expand(x, s)", 4, opset=8, x=(4, 5, 5), s=[4, 1, 1])
case("e = Expand(x, s); y = Mul(e, z)", 4, x=(1, 5, 5), z=X, s=[1, 4, 1, 1])
case("s = Shape(z); e = Expand(x, s); y = Mul(e, z)", 4, x=(4, 1, 1), z=X)

# Shapes and constants
case("s = Shape(x); r = Reshape(x, s); y = Relu(r)", 4, x=X)
case("s = Shape(x); y = Reshape(x, s)", 4, opset=13, x=X, batch=1)
case("s = Shape<start=2>(x); t = Concat<axis=0>(c, s); y = Reshape(x, t)", 4, x=X, c=[-1, 4])
case("s = Size(x); f = Cast<to=1>(s); y = Div(x, f)", 0, x=X, batch=1, why="their number")
case("s = Shape(x); c = ConstantOfShape(s); y = Add(x, c)", 0, x=X, batch=1, why="their number")
case("r = Range(a, b, d); y = Add(x, r)", 4, x=X, a=SCALAR(1), b=SCALAR(6), d=SCALAR(1))
case("c = Constant<value = float[4, 1, 1] {1., 2., 3., 4.}>(); y = Mul(x, c)", 4, x=X)
case("c = Constant<value = float[4, 1, 1] {1., 2., 3., 4.}>(); y = Mul(x, c)", 4, opset=11, x=X)
case("c = Constant<value = float[4, 1, 1] {1., 2., 3., 4.}>(); y = Mul(x, c)", 4, opset=9, x=X)
case("c = Constant<value_floats = [1.0, 2.0, 3.0, 4.0, 5.0]>(); y = Mul(x, c)", 4, x=X)
case("c = Constant<value_float = 2.0>(); y = Mul(x, c)", 4, x=X)
case("c = Constant<value_ints = [0, 4, -1]>(); y = Reshape(x, c)", 4, x=X)
case("c = Constant<value_int = 2>(); f = Cast<to=1>(c); y = Mul(x, f)", 4, x=X)

# Convolutions and matrix products
case("y = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(x, w, b)", 10, x=X, w=W(6, 4, 3, 3), b=W(6))
case("y = Conv<pads=[0, 1, 2, 1], dilations=[1, 2]>(x, w)", 10, x=X, w=W(6, 4, 3, 3), opset=10)
for _pad in ("SAME_UPPER", "SAME_LOWER", "VALID"):
    case(f'y = Conv<auto_pad="{_pad}", strides=[2, 2]>(x, w)', 10, x=X, w=W(6, 4, 2, 3))
case("y = Conv<pads=[1, 1]>(x, w)", 10, x=(4, 9), w=W(6, 4, 3), opset=22)
case("y = Conv(x, w)", 10, x=(4, 3, 4, 3), w=W(6, 4, 2, 2, 2))
case("y = Conv<group=2>(x, w, b)", 5, x=X, w=W(6, 2, 3, 3), b=W(6))
case("y = Conv<group=4>(x, w, b)", 4, x=X, w=W(4, 1, 3, 3), b=W(4))
case("y = Conv<group=4>(x, w)", 4, x=X, w=W(8, 1, 3, 3))
case("a = Conv(x, w); b = Conv(z, w); y = Add(a, b)", 10, x=X, z=X, w=W(6, 4, 1, 1))
_UP = "y = ConvTranspose<strides=[2, 2]"
case(f"{_UP}, pads=[0, 1, 1, 0]>(x, w, b)", 10, x=X, w=W(4, 6, 3, 3), b=W(6))
case(f"{_UP}, dilations=[1, 2], output_padding=[1, 0]>(x, w)", 10, x=X, w=W(4, 6, 3, 3))
case(f'{_UP}, auto_pad="SAME_UPPER">(x, w)', 10, opset=10, x=X, w=W(4, 6, 3, 3))
case(f"{_UP}, output_shape=[10, 9]>(x, w)", 10, x=X, w=W(4, 6, 3, 3))
case(f"{_UP}, group=2>(x, w, b)", 5, x=X, w=W(4, 3, 2, 2), b=W(6))
case(f"{_UP}, group=2>(x, w)", 5, x=X, w=W(4, 3, 2, 2))
case(f"{_UP}, group=4>(x, w, b)", 4, x=X, w=W(4, 1, 2, 2), b=W(4))
case(f"{_UP}, group=4>(x, w, b)", 4, x=X, w=W(4, 2, 2, 2), b=W(8))
case("y = ConvTranspose(x, w)", 10, opset=22, x=(4, 6), w=W(4, 6, 3))
case("y = Gemm(x, w, b)", 4, x=(4,), w=W(4, 5), b=W(5))
case("y = Gemm<transB=1, alpha=0.5, beta=2.0>(x, w, b)", 4, x=(4,), w=W(5, 4), b=W(1))
case("y = Gemm(x, w, b)", 4, opset=8, x=(4,), w=W(4, 5), b=W(1, 5))
case("h = Gemm(x, v); y = Gemm(h, w)", 4, x=(4,), v=W(4, 6), w=W(6, 5))
case("y = MatMul(x, w)", 4, x=(4,), w=W(4, 5))
case("t = Transpose<perm=[0, 2, 3, 1]>(x); y = MatMul(t, w)", 4, x=X, w=W(4, 6))
case("y = MatMul(c, x)", 4, x=X, c=W(6, 5))  # over height, as in dense upsampling
case("r = Reshape(x, s); y = MatMul(c, r)", 4, x=X, s=[0, 4, 25], c=W(6, 4))  # mixes channels
case("r = Reshape(x, s); y = MatMul(r, c)", 4, x=X, s=[0, 4, 25], c=W(1, 25, 7))
case("y = MatMul(x, c)", 4, x=X, c=W(4, 5, 6))  # a matrix for each channel
case("y = MatMul(c, x)", 4, x=X, c=W(4, 6, 5))
case("y = MatMul(x, c)", 4, x=X, c=W(5))
case("f = Flatten(x); y = MatMul(c, f)", 4, x=X, c=W(2, 1), batch=1)
case("y = MatMul(x, z)", 4, x=X, z=X)
case("y = MatMul(x, z)", 4, x=X, z=(1, 5, 5))
_RELATION = "a = Reshape(x, s); b = Transpose<perm=[0, 2, 1]>(a); "
case(_RELATION + "m = MatMul(a, b); y = MatMul(m, w)", 4, x=X, s=[0, 4, 25], w=W(4, 6))
case(_RELATION + "m = MatMul(b, a); y = Relu(m)", 0, x=X, s=[0, 4, 25], why="sums products")
_ATTEND = "q = Reshape(x, s); k = Reshape(z, s); v = Reshape(w, s); "
_ATTEND += "t = Transpose<perm=[0, 2, 1]>(q); m = MatMul(t, k); p = Softmax(m); "
_ATTEND += "o = Transpose<perm=[0, 2, 1]>(p); y = MatMul(v, o)"
case(_ATTEND, 6, x=X, z=X, w=(6, 5, 5), s=[0, -1, 25], why="sums products")
_PAIRS = "h = Gemm(x, v); y = Gemm<transB=1>(h, z)"
case(_PAIRS, 4, x=(4,), z=(5,), v=W(4, 5), batch=1, why="sums products")
case("y = Gemm<transA=1>(x, z)", 3, x=(4,), z=(3,), batch=2, why="graph output")
case("y = Gemm(w, x, b)", 4, x=(4,), w=W(5, 1), b=W(5, 4), batch=1)
case('y = Einsum<equation="nchw,oc->nohw">(x, w)', 4, x=X, w=W(6, 4))
case('y = Einsum<equation="nchw, ncw -> nchw">(x, c)', 4, x=X, c=W(1, 4, 5), batch=1)
_PAIRED = 'r = Einsum<equation="ncij,ndij->ncd">(x, z); y = MatMul(r, w)'
case(_PAIRED, 7, x=X, z=(3, 5, 5), w=W(3, 6))
case('r = Einsum<equation="bcij">(x); y = Relu(r)', 4, x=X)
_DOT = 'r = Einsum<equation="ncij,ncij->nij">(x, z); y = Relu(r)'
case(_DOT, 0, x=X, z=X, why="sums products")
case('y = Einsum<equation="...c->...c">(x)', 0, x=X, why="has dots")

# Moves
case("y = Concat<axis=1>(x, z)", 7, x=X, z=(3, 5, 5))
case("y = Concat<axis=-1>(x, z)", 4, opset=12, x=X, z=(4, 5, 2))
case("y = Concat<axis=1>(x, c)", 4, x=X, c=W(1, 2, 5, 5), batch=1)
case("t = Transpose<perm=[0, 2, 3, 1]>(x); f = Flatten(t); y = Gemm(f, w)", 4, x=X, w=W(100, 5))
case("f = Flatten(x); y = Gemm(f, w, b)", 4, opset=8, x=X, w=W(100, 5), b=W(5))
case("t = Transpose(x); y = Transpose(t)", 4, opset=9, x=X)
case("y = Reshape(x, s)", 4, x=X, s=[0, -1])
case("y = Reshape(x, s)", 4, x=X, s=[-1, 100])
case("y = Reshape(x, s)", 4, x=X, s=[1, 100], batch=1)
case("y = Reshape<allowzero=1>(x, s)", 4, x=X, s=[-1, 4, 25])
case("y = Reshape(x, s)", 0, x=X, s=[0, 5, 5, 4], why="")
case(
    "s = Shape(x); n = Gather<axis=0>(s, i); u = Unsqueeze(n, i1); t = Concat<axis=0>(u, m);"
    "y = Reshape(x, t)",
    4,
    x=X,
    i=np.array(0),
    i1=[0],
    m=[100],
)
_SHUFFLE = "r = Reshape(x, s); t = Transpose<perm=[0, 2, 1, 3, 4]>(r); y = Reshape(t, u)"
case(_SHUFFLE, 6, x=(6, 4, 4), s=[-1, 2, 3, 4, 4], u=[-1, 6, 4, 4])
case(_SHUFFLE, 6, x=(6, 4, 4), s=[1, 2, 3, 4, 4], u=[1, -1, 4, 4], batch=1)
case("g = GlobalAveragePool(x); s = Squeeze(g, a); y = Unsqueeze(s, a)", 4, x=X, a=[2, 3])
case("g = GlobalMaxPool(x); y = Squeeze<axes=[2, 3]>(g)", 4, opset=12, x=X)
case("a, b = Split<axis=1>(x, s); y = Concat<axis=1>(b, a)", 5, x=(5, 4, 4), s=[2, 3])
case("a, b = Split<axis=1>(x); y = Add(a, b)", 3, x=(6, 4, 4))
case("a, b, c = Split<axis=1>(x); y = Concat<axis=1>(b, a, c)", 6, opset=11, x=(6, 4, 4))
case("a, b = Split<axis=1, split=[2, 4]>(x); y = Concat<axis=1>(b, a)", 6, opset=9, x=(6, 4, 4))
case("a, b = Split<axis=1, num_outputs=2>(x); y = Concat<axis=1>(b, a)", 5, opset=18, x=(5, 4, 4))
case("y = Slice(x, a, b, c)", 6, x=(6, 4, 4), a=[1], b=[5], c=[1])
case("y = Slice(x, a, b, c, d)", 6, x=(6, 4, 4), a=[1, 3], b=[999, -999], c=[1, 2], d=[1, -1])
case("y = Slice<starts=[-4], ends=[-1], axes=[1]>(x)", 6, opset=9, x=(6, 4, 4))
case("y = Slice<starts=[0, 1], ends=[9, 3]>(x)", 6, opset=9, x=(6, 4, 4), batch=1)
case("y = Gather<axis=1>(x, i)", 4, x=X, i=[2, 0, -1])
case("y = Gather<axis=2>(x, i)", 4, x=X, i=np.array(1))
case("y = Pad(x, p)", 4, x=X, p=[0, 0, 1, 1, 0, 0, 2, -1])
case('y = Pad<mode="reflect">(x, p)', 4, x=X, p=[0, 0, 1, 1, 0, 0, 2, 1])
case("y = Pad(x, p, v, a)", 4, opset=18, x=X, p=[1, 2], v=SCALAR(0.5), a=[-2])
case('y = Pad<mode="edge", pads=[0, 0, 1, 1, 0, 0, 2, 1]>(x)', 4, opset=10, x=X)
_OPTION_A = "d = Slice(x, a, b, c, e); p = Pad(d, q); v = Conv(x, w); y = Add(p, v)"
case(  # ResNet's shortcut without weights
    _OPTION_A.replace("v = Conv(x, w)", "v = Conv<strides=[2, 2]>(x, w)"),
    8,
    x=(4, 6, 6),
    **{"a": [0, 0], "b": [99, 99], "c": [2, 3], "e": [2, 2]},
    q=[0, 2, 0, 0, 0, 2, 0, 0],
    w=W(8, 4, 1, 1),
)
case("y = Tile(x, r)", 4, x=X, r=[1, 1, 2, 1])
case("y = Tile(x, r)", 4, x=X, r=[1, 2, 1, 1])
for _mode in ("DCR", "CRD"):
    case(f'y = DepthToSpace<blocksize=2, mode="{_mode}">(x)', 3, x=(12, 3, 3))
case("y = SpaceToDepth<blocksize=2>(x)", 4, x=(4, 4, 6))

# Normalisation
BN = {"s": W(4), "b": W(4), "m": W(4), "v": POSITIVE}
for _opset in (8, 9, 17):
    case("y = BatchNormalization(x, s, b, m, v)", 4, opset=_opset, x=X, **BN)
case("y = BatchNormalization<epsilon=0.01>(x, s, b, m, v)", 4, x=(4,), **BN)
case("y = InstanceNormalization(x, s, b)", 4, x=X, s=W(4), b=W(4))
case("y = LRN<size=3, alpha=0.1>(x)", 0, x=X, why="which divides each channel by its neighbours")
case("y = LayerNormalization<axis=1>(x, s, b)", 0, x=X, s=W(4, 5, 5), b=W(5), why="statistics")
case("y = LayerNormalization(x, s)", 4, x=X, s=W(5))
case("y = RMSNormalization(x, s)", 4, opset=23, x=X, s=W(5))
case("y = LpNormalization<axis=1>(x)", 0, x=X, why="a norm over these channels")
case("y = LpNormalization<axis=-1, p=1>(x)", 4, x=X)
case("y, m, d = LayerNormalization(x, s, b)", 4, x=X, s=W(5), b=W(5))
case("y = LayerNormalization(x, s, b)", 4, x=X, s=W(1), b=W(5))
_GROUPED = "y = GroupNormalization<num_groups=3>(x, s, b)"
case(_GROUPED, 3, opset=21, x=(6, 5, 5), s=W(6), b=W(6))
case(_GROUPED, 3, opset=21, x=(3, 5, 5), s=W(3), b=W(3))

case("y = MeanVarianceNormalization<axes=[0, 2, 3]>(x)", 4, x=X, masked=False)
case("y = MeanVarianceNormalization<axes=[-2, -1]>(x)", 4, opset=11, x=X, masked=False)
case("y = MeanVarianceNormalization<axes=[1, 2, 3]>(x)", 0, x=X, why="statistics span")

# Pooling
POOLS = (
    "kernel_shape=[3, 2], strides=[2, 1]",
    "kernel_shape=[3, 3], pads=[1, 1, 1, 1]",
    "kernel_shape=[3, 3], pads=[0, 1, 2, 1], strides=[2, 2]",
    "kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1",
    "kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1",
    'kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"',
    'kernel_shape=[2, 2], auto_pad="SAME_LOWER"',
)
for _where in POOLS:
    case(f"y = MaxPool<{_where}>(x)", 4, x=X)
    case(f"y = AveragePool<{_where}>(x)", 4, opset=19, x=X)
    case(f"y = AveragePool<{_where}, count_include_pad=1>(x)", 4, opset=19, x=X)
    case(f"y = LpPool<{_where}>(x)", 4, opset=18, x=X)
case("y = MaxPool<kernel_shape=[2, 2], dilations=[2, 1], pads=[1, 0, 1, 0]>(x)", 4, x=X)
case("y = AveragePool<kernel_shape=[2, 2], dilations=[2, 1]>(x)", 4, opset=19, x=X)
case("y = MaxPool<kernel_shape=[3], strides=[2]>(x)", 4, opset=8, x=(4, 9))
_PLACES = "pads=[1, 0, 0, 1], strides=[2, 1], kernel_shape=[3, 2]>(x)"
for _order in (0, 1):
    _body = f"y, i = MaxPool<storage_order={_order}, {_PLACES}"
    case(_body, 0, x=X, why="whose indices count the elements of all channels")
case("y, i = MaxPool<kernel_shape=[2, 2], pads=[1, 1, 1, 1]>(x)", 0, x=X, why="whose indices")
case("y = AveragePool<kernel_shape=[2, 2, 2]>(x)", 4, opset=7, x=(4, 3, 4, 3))
case("g = GlobalAveragePool(x); y = Flatten(g)", 4, x=X)
case("g = GlobalLpPool(x); y = Flatten(g)", 4, x=X)

# Resizing
TWICE = np.array([1, 1, 2, 1.5], np.float32)
NONE = np.zeros(0, np.float32)
for _mode in ("nearest", "linear"):
    case(f'y = Upsample<mode="{_mode}", scales=[1., 1., 2., 1.5]>(x)', 4, opset=8, x=X)
    case(f'y = Upsample<mode="{_mode}">(x, f)', 4, opset=9, x=X, f=TWICE)
    case(f'y = Resize<mode="{_mode}">(x, f)', 4, opset=10, x=X, f=TWICE)
    case(f'y = Resize<mode="{_mode}">(x, n, f)', 4, opset=11, x=X, f=TWICE, n=NONE)
    for _how in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
        _where = f'mode="{_mode}", coordinate_transformation_mode="{_how}"'
        case(f"y = Resize<{_where}>(x, , f)", 4, x=X, f=TWICE)
        case(f"y = Resize<{_where}>(x, , , s)", 4, x=X, s=[1, 4, 7, 3], batch=1)
case('y = Resize<mode="cubic", exclude_outside=1>(x, , f)', 4, x=X, f=TWICE)
case('y = Resize<mode="linear", axes=[2, 3]>(x, , , s)', 4, opset=19, x=X, s=[8, 9])
case("y = Resize(x, , f)", 0, x=X, f=np.array([1, 2, 1, 1], np.float32), why="resizes the axis")
_SIZES = "a = Shape<start=0, end=2>(x); s = Concat<axis=0>(a, h); y = Resize(x, , , s)"
case(_SIZES, 4, x=X, h=[7, 9])
case(_SIZES, 4, x=X, h=[5, 5])

# Reductions
for _name in "Mean Sum Max Min Prod L1 L2 SumSquare LogSum LogSumExp".split():
    _input = 13 if _name == "Sum" else 18
    case(f"a = Exp(x); y = Reduce{_name}(a, d)", 4, opset=_input, x=X, d=[2, -1])
    case(f"a = Exp(x); y = Reduce{_name}<axes=[3], keepdims=0>(a)", 4, opset=12, x=X)
case("y = ReduceMean<axes=[1]>(x)", 0, x=X, why="which reduces over these channels")
case("y = ReduceSum(x)", 0, x=X, why="which reduces over these channels")
case("y = ReduceMean<noop_with_empty_axes=1>(x)", 4, opset=18, x=X)
case("y = ReduceMean<keepdims=0>(x, d)", 4, opset=18, x=X, d=[2, 3])
case("y = ArgMax<axis=2>(x)", 4, x=X)
case("y = ArgMin<axis=-1, keepdims=0, select_last_index=1>(x)", 4, x=X)
case("y = ArgMax<axis=1>(x)", 0, x=X, why="which reduces over these channels")
case("y = Det(x)", 4, x=X)
case(
    "t = Transpose<perm=[0, 2, 1, 3]>(x); y = Det(t)",
    0,
    x=(5, 5, 5),
    why="which reduces over these channels",
)
