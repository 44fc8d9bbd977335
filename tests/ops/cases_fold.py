"""Cases of axes that are folded into each other: time into channels, channels into the batch."""

from __future__ import annotations

from tests.ops.registry import W, case

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
