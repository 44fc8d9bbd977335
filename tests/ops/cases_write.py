"""Cases of channels that are written in place: partial convolutions, shifts."""

from __future__ import annotations

import numpy as np

from tests.ops.registry import W, X, case

_FIRST = "t = Transpose<perm=[1, 0, 2, 3]>(x); u = Transpose<perm=[1, 0, 2, 3]>(z); "
_FIRST += "s = ScatterND{}(t, i, u); y = Transpose<perm=[1, 0, 2, 3]>(s)"
_WIDE = {"x": (6, 5, 5), "z": (3, 5, 5)}
_ROWS = np.array([[4], [0], [-1]])
for _opset, _how in ((11, ""), (16, '<reduction="add">'), (18, '<reduction="max">')):
    case(_FIRST.format(_how), 6, opset=_opset, i=_ROWS, **_WIDE)
_PART = (
    "p = Slice(x, b, e, a); c = Conv<pads=[1, 1, 1, 1]>(p, w); s = ScatterND(x, i, c); y = Relu(s)"
)
_ENDS = {"b": [0], "e": [3], "a": [1], "w": W(3, 3, 3, 3), "x": (6, 5, 5)}
for _batch in (1, 3):
    _cross = np.stack(np.meshgrid(range(_batch), range(3), indexing="ij"), -1)
    case(_PART, 6, i=_cross, batch=_batch, **_ENDS)
_SHIFT = "s = ScatterND(k, i, z); m = ScatterND(s, j, x); y = Relu(m)"
_HALVES = {
    "i": np.array([[[0, k] for k in (0, 1)]]),
    "j": np.array([[[0, k] for k in (2, 3, 4, 5)]]),
}
case(_SHIFT, 6, k=np.zeros((1, 6, 5, 5), np.float32), x=X, z=(2, 5, 5), batch=1, **_HALVES)
_ONE = {"i": np.array([[[0, 2]]]), "batch": 1}
for _how in ("add", "mul", "max"):
    case(f'y = ScatterND<reduction="{_how}">(x, i, z)', 3, x=X, z=(1, 5, 5), **_ONE)
_MIXED = np.array([[[[0, 0], [0, 1]], [[0, 2], [0, 3]]]])  # two axes of the updates hold channels
case(
    "r = Reshape(z, s); y = ScatterND(x, i, r)",
    0,
    x=X,
    z=(4, 5, 5),
    i=_MIXED,
    s=[1, 2, 2, 5, 5],
    batch=1,
    why="is written in place",
)
_RANGE = "h = Shape(x); n = Gather(h, o); r = Range(f, n, o); l = Slice(r, b, e, a); "
_RANGE += "i = Unsqueeze(l, o1); " + _FIRST.format("")
_COUNTED = {"o": np.array(1), "f": np.array(0), "b": [3], "e": [99], "a": [0], "o1": [1]}
case(_RANGE, 6, **_COUNTED, **_WIDE)
_OPEN = _RANGE.replace(
    "i = Unsqueeze(l, o1)", "v = Gather(h, f); d = Add(l, v); m = Mod(d, n); i = Unsqueeze(m, o1)"
)
case(_OPEN, 0, why="beside sizes known only", **_COUNTED, **_WIDE)
_GRID = "h = Shape(x); n = Gather(h, f); r = Range(f, n, o); b = Unsqueeze(r, o1); g = Add(b, l); "
_GRID += (
    "e = Shape(g); p = Expand(b, e); q = Expand(l, e); u = Unsqueeze(p, m); v = Unsqueeze(q, m); "
)
_GRID += "i = Concat<axis=2>(u, v); "
_AXES = {"o": np.array(1), "f": np.array(0), "o1": [1], "m": [2], **_WIDE}
for _list in ([0, 1, 2], [4, 0, 3]):
    case(_GRID + "y = ScatterND(x, i, z)", 6, l=_list, **_AXES)
_COUNT = (
    "s = Shape<start=1, end=2>(x); w = Squeeze(s); k = Range(f, w, o); l = Slice(k, b0, e0, a0); "
)
_ENDS = {"b0": [2], "e0": [5], "a0": [0]}
case(_COUNT + _GRID + "y = ScatterND(x, i, z)", 6, **_AXES, **_ENDS)
_TURNS = _GRID.replace(
    "g = Add(b, l)", "t = Add(n, l); d = Sub(t, n); j = Mul(d, o1); g = Add(b, j)"
)
_TURNS = _TURNS.replace("q = Expand(l, e)", "q = Expand(j, e)")
case(_TURNS + "y = ScatterND(x, i, z)", 6, l=[0, 1, 2], **_AXES)
_OTHER = _GRID.replace("q = Expand(l, e)", "t = Add(l, n); j = Mod(t, w); q = Expand(j, e)")
_SIZED = _GRID.replace(
    "q = Expand(l, e)", "a = Size(l); d = Sub(w, a); t = Expand(l, e); q = Add(t, d)"
)
_KNOWN = "beside sizes known only"
case(_OTHER + "y = ScatterND(x, i, z)", 0, w=np.array(6), l=[0, 1, 2], why=_KNOWN, **_AXES)
case(_SIZED + "y = ScatterND(x, i, z)", 0, w=np.array(3), l=[0, 1, 2], why=_KNOWN, **_AXES)
_LINES = 'y = ScatterElements<axis=1, reduction="{}">(x, i, z)'
_TO = np.broadcast_to(np.array([5, 0, 3]).reshape(1, 3, 1, 1), (1, 3, 5, 5))
for _how in ("none", "add", "min"):
    case(_LINES.format(_how), 6, opset=18, i=_TO, batch=1, **_WIDE)
case("y = ScatterElements<axis=-3>(x, i, z)", 6, opset=11, i=_TO, batch=1, **_WIDE)
case(
    "y = ScatterElements<axis=2>(x, i, z)",
    6,
    x=(6, 5, 5),
    z=(4, 2, 5),
    batch=1,
    i=np.resize([3, -1], (1, 4, 2, 5)),
)
_SOME = np.random.default_rng(0).permuted(np.tile(np.arange(6), (25, 1)), axis=1)[:, :3]
_SOME = _SOME.T.reshape(1, 3, 5, 5)
case(_LINES.format("none"), 0, opset=18, i=_SOME, batch=1, why="is written in place", **_WIDE)
