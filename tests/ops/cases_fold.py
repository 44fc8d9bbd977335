"""Cases of axes that are folded into each other: time into channels, channels into the batch."""

from __future__ import annotations

import numpy as np

from tests.ops.registry import W, X, case

# Time and channels: what a later node needs whole is not what is cut, near or far
_TIMES = {"x": (4, 4, 4), "w": W(24, 4, 1, 1)}
_APART = "c = Conv(x, w); q = Reshape(c, u); "
for _far in ("r = Identity(q)", "s = Sigmoid(q); r = Mul(q, s)", "r = Softmax<axis=2>(q)"):
    _sum = f"{_APART}{_far}; y = ReduceSum<keepdims=0>(r, a)"
    case(_sum, 8, u=[-1, 4, 6, 4, 4], a=[2], **_TIMES)
_MEAN = "r = Relu(q); y = ReduceMean<axes=[{}], keepdims=0>(r)"
case(_APART + _MEAN.format(2), 8, u=[-1, 4, 6, 4, 4], **_TIMES)
case(_APART + _MEAN.format(1), 8, u=[-1, 6, 4, 4, 4], **_TIMES)
_TURNED = (
    _APART + "t = Transpose<perm=[0, 2, 1, 3, 4]>(q); " + _MEAN.format(1).replace("(q)", "(t)")
)
case(_TURNED, 8, u=[-1, 4, 6, 4, 4], **_TIMES)
_JOINED = "t = Transpose<perm=[0, 2, 1, 3]>(x); r = Reshape(t, s); q = Reshape(r, u); "
_JOINED += "y = ReduceSum<keepdims=0>(q, a)"
case(_JOINED, 4, x=(4, 5, 5), s=[-1, 20, 5], u=[-1, 5, 4, 5], a=[1])
case(_APART + _MEAN.format("1, 2"), 4, u=[-1, 4, 6, 4, 4], why="reduces over these", **_TIMES)

# Channels in the batch: a blur, a wavelet and its inverse, a window, each of one channel alone
_EACH = "r = Reshape(x, s); {}; y = Reshape(c, u)"
_ALONE = {"x": (4, 5, 5), "s": [-1, 1, 5, 5]}
_BLUR = 'p = Pad<mode="reflect">(r, a); c = Conv<strides=[2, 2]>(p, w)'
_SMOOTH = {"a": [0, 0, 1, 1, 0, 0, 1, 1], "w": W(1, 1, 3, 3), "u": [-1, 4, 3, 3]}
for _batch in (None, 2):
    case(_EACH.format(_BLUR), 4, batch=_batch, **_ALONE, **_SMOOTH)
case(_EACH.format(_BLUR), 4, x=X, s=[4, 1, 5, 5], batch=1, **_SMOOTH)
_APART = {"w": W(4, 1, 2, 2), "u": [-1, 16, 4, 4]}
case(_EACH.format("c = Conv(r, w)"), 4, why="is split apart", **_ALONE, **_APART)
_BACK = {"w": W(1, 1, 2, 2), "v": W(1), "u": [-1, 4, 10, 10]}
case(_EACH.format("c = ConvTranspose<strides=[2, 2]>(r, w, v)"), 4, **_ALONE, **_BACK)
for _name in ("MaxPool", "AveragePool"):
    _pool = f"c = {_name}<kernel_shape=[3, 3]>(r)"
    case(_EACH.format(_pool), 4, u=[-1, 4, 3, 3], **_ALONE)
_NORM = "c = BatchNormalization(r, n, b, m, v)"
_ONE = {name: np.abs(W(1)) for name in "nbmv"}
case(_EACH.format(_NORM), 4, u=[-1, 4, 5, 5], **_ALONE, **_ONE)
_SHAPES = "h = Shape(x); n = Gather(h, i); d = Gather(h, j); nd = Mul(n, d); "
_SHAPES += "s = Concat<axis=0>(nd, j, k); u = Concat<axis=0>(n, d, m); "
_READ = {"i": [0], "j": [1], "k": [5, 5], "m": [3, 3], "w": W(1, 1, 3, 3)}
case(_SHAPES + _EACH.format("c = Conv(r, w)"), 4, x=X, **_READ)
_MEETS = "r = Reshape(x, s); q = Mul(r, o); c = Conv(q, w); y = Reshape(c, u)"
case(_MEETS, 4, x=X, s=[4, 1, 5, 5], o=W(4, 1, 1, 1), w=W(1, 1, 3, 3), u=[1, 4, 3, 3], batch=1)
_STEPS = "r = Reshape(x, s); c = Conv(r, w); k = Relu(c); d = Conv(k, v); y = Reshape(d, u)"
_DEEP = {"w": W(6, 1, 2, 2), "v": W(2, 6, 1, 1), "u": [-1, 8, 4, 4]}
case(_STEPS, 10, **_ALONE, **_DEEP)
case("y = Conv(x, w)", 10, x=X, w=W(6, 4, 3, 3), batch=3)
