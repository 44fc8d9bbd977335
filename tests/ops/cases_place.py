"""Cases of operators that read at places: by index, between pixels, step by step."""

from __future__ import annotations

import numpy as np

from tests.ops.registry import W, X, case

# Places by index
_POINTS = np.array([[[0, 1], [4, 4]], [[2, -1], [3, 0]], [[1, 1], [0, 0]]])
_SPACE = "t = Transpose<perm=[2, 3, 0, 1]>(x); g = GatherND(t, i); "
_SPACE += "y = Transpose<perm=[2, 3, 0, 1]>(g)"
case(_SPACE, 4, x=X, i=_POINTS)
case(_SPACE, 4, x=X, i=np.resize(_POINTS, (40, 20, 2)))  # too many to be followed
case(_SPACE, 4, opset=11, x=X, i=_POINTS)
_BY_CHANNEL = "t = Transpose<perm=[1, 0, 2, 3]>(x); g = GatherND(t, i); "
_BY_CHANNEL += "y = Transpose<perm=[1, 0, 2, 3]>(g)"
case(_BY_CHANNEL, 4, x=X, i=np.array([[2], [0], [-1]]))
_BOTH = np.stack(np.broadcast_arrays(*np.ix_([3, 1, 0], [0, 2])), -1)
_BOTH_BODY = "t = Transpose<perm=[1, 2, 0, 3]>(x); g = GatherND(t, i); "
case(_BOTH_BODY + "y = Transpose<perm=[2, 0, 1, 3]>(g)", 8, x=(8, 5, 5), i=_BOTH)
_EACH_SAMPLE = np.array([[[3, 1], [0, 0], [2, 4]]])
case("y = GatherND<batch_dims=1>(x, i)", 0, x=X, i=_EACH_SAMPLE, batch=1, why="named by index")
case(
    "g = GatherND<batch_dims=2>(x, i); y = Relu(g)",
    0,
    x=X,
    i=np.zeros((1, 4, 2), np.int64),
    batch=1,
    why="by index",
)
_ELEMENTS = np.array([0, 2, -1, 4, 1, 0, 3] * 20).reshape(1, 4, 5, 7)
case("y = GatherElements<axis=3>(x, i)", 4, x=X, i=_ELEMENTS, batch=1)
case("y = GatherElements<axis=3>(x, i)", 0, x=X, i=_ELEMENTS[:, :3], batch=1, why="by index")
case(
    "y = GatherElements<axis=1>(x, i)",
    0,
    opset=11,
    x=X,
    i=_ELEMENTS[..., :5] % 4,
    batch=1,
    why="by index",
)
_SCATTER = "y = ScatterElements<axis=3>(x, i, z)"
case(_SCATTER, 4, x=(4, 5, 9), z=(4, 5, 3), i=np.resize([8, 1, 4], (1, 4, 5, 3)), batch=1)
case(_SCATTER, 4, x=(4, 5, 9), z=(4, 5, 3), i=np.resize([8, 1, 4], (1, 4, 5, 3)), batch=1, opset=11)
_SCATTER = 'y = ScatterElements<axis=2, reduction="add">(x, i, c)'
case(_SCATTER, 4, x=X, i=np.resize([4, -1], (1, 4, 2, 5)), c=W(1, 4, 2, 5), batch=1, opset=16)
_WRITE = "t = Transpose<perm=[2, 3, 0, 1]>(x); u = Transpose<perm=[2, 0, 1]>(z); "
_WRITE += "s = ScatterND(t, i, u); y = Transpose<perm=[2, 3, 0, 1]>(s)"
case(_WRITE, 4, x=X, z=(4, 3), i=_POINTS[:, 0])
case(_WRITE, 4, x=X, z=(4, 3), i=_POINTS[:, 0], opset=11)
_NAMED = {"i": np.array([[[0, 2]]]), "batch": 1, "why": "by index"}
case('y = ScatterND<reduction="mul">(x, i, z)', 0, x=X, z=(1, 5, 5), **_NAMED)
case("y, i = TopK<axis=2>(x, k)", 4, x=X, k=[3])
case("y, i = TopK<axis=-1, largest=0>(x, k)", 4, x=X, k=[2])
case("y, i = TopK<axis=1>(x, k)", 0, x=X, k=[2], why="compares the positions")
case("y, i = TopK(x, k)", 4, opset=10, x=X, k=[3])
case("y, i = TopK<k=3>(x)", 4, opset=9, x=X)
for _how in ("", "<exclusive=1>", "<reverse=1>", "<reverse=1, exclusive=1>"):
    case(f"y = CumSum{_how}(x, a)", 4, x=X, a=np.array(2))
case("y = CumSum(x, a)", 0, x=X, a=np.array(-3), why="adds up the positions")
case("y = Trilu(x)", 4, x=X)
case("y = Trilu<upper=0>(x, k)", 4, x=X, k=np.array(1))

# Places between pixels
_GRID = np.random.default_rng(0).uniform(-1.2, 1.2, (1, 3, 7, 2)).astype(np.float32)
for _mode in ("bilinear", "nearest", "bicubic"):
    for _border in ("zeros", "border", "reflection"):
        _where = f'mode="{_mode}", padding_mode="{_border}"'
        case(f"y = GridSample<{_where}>(x, g)", 4, x=X, g=_GRID, batch=1)
case('y = GridSample<mode="linear", align_corners=1>(x, g)', 4, opset=20, x=X, g=_GRID, batch=1)
case("y = GridSample(x, g)", 4, opset=22, x=X, g=_GRID, batch=1)
_WARP = "g = Transpose<perm=[0, 2, 3, 1]>(z); y = GridSample(x, g)"
case(_WARP, 4, x=X, z=(2, 5, 5), why="coordinates")  # a network that moves pixels
_BOXES = np.array([[0.2, 0.4, 3.7, 4.1], [-2, -1, 6, 2.5], [1, 1, 1.2, 1.1]], np.float32)
_ROIS = {"x": X, "r": _BOXES, "b": [0, 0, 0]}
_REGION = "output_height=3, output_width=2, spatial_scale=0.9"
for _ratio in (0, 2):
    case(f"y = RoiAlign<{_REGION}, sampling_ratio={_ratio}>(x, r, b)", 4, **_ROIS)
    case(f"y = RoiAlign<{_REGION}, sampling_ratio={_ratio}>(x, r, b)", 4, opset=10, **_ROIS)
_BLOCK = {"i": [6, 5], "k": [2, 1]}
case("y = Col2Im(x, i, k)", 4, opset=18, x=(8, 25), **_BLOCK)
case("y = Col2Im<pads=[1, 0, 0, 1], strides=[2, 1]>(x, i, k)", 4, opset=18, x=(8, 18), **_BLOCK)
_DEFORM = "y = DeformConv<pads=[1, 1, 1, 1], strides=[1, 2]{}>(x, w, z, b, m)"
_BENT = {"x": X, "z": (18, 5, 3), "m": (9, 5, 3), "w": W(6, 4, 3, 3), "b": W(6)}
case(_DEFORM.format(""), 10, opset=19, why="coordinates", **_BENT)
case(_DEFORM.format("").replace(", b, m", ""), 10, opset=22, **{k: _BENT[k] for k in "xzw"})
_BENT["w"] = W(6, 2, 3, 3)
case(_DEFORM.format(", group=2"), 5, opset=19, **_BENT)
_BENT |= {"w": W(6, 4, 3, 3), "z": (36, 5, 3), "m": (18, 5, 3)}
case(_DEFORM.format(", offset_group=2"), 8, opset=19, **_BENT)
_BENT["w"] = W(6, 2, 3, 3)
case(_DEFORM.format(", group=2, offset_group=2"), 0, opset=19, why="in two ways", **_BENT)

# Recurrent layers on the columns of a map
_COLUMNS = "s = Squeeze(x, a); t = Transpose<perm=[2, 0, 1]>(s); "
_MEMORY = {"w": W(1, 12, 4), "r": W(1, 12, 3), "b": W(1, 24), "p": W(1, 9)}
_GATED = {"w": W(2, 9, 4), "r": W(2, 9, 3), "b": W(2, 18)}
_READ = {"x": (4, 1, 5), "a": [2]}
_PEEP = "y, h, c = LSTM<hidden_size=3>(t, w, r, b, , , , p)"
case(_COLUMNS + _PEEP, 4, batch=1, **_READ, **_MEMORY)
_MEMORY.pop("p")
_BACKWARDS = 'direction="reverse", hidden_size=3'
case(f"{_COLUMNS}y = LSTM<{_BACKWARDS}>(t, w, r, b)", 4, opset=22, **_READ, **_MEMORY)
case(f"{_COLUMNS}y = LSTM<hidden_size=3>(t, w, r)", 4, opset=13, **_READ, **_MEMORY)
_BOTH_WAYS = 'direction="bidirectional", hidden_size=3, linear_before_reset='
for _when in (0, 1):
    case(f"{_COLUMNS}y = GRU<{_BOTH_WAYS}{_when}>(t, w, r, b)", 4, **_READ, **_GATED)
case(
    "s = Squeeze(x, a); y = GRU<hidden_size=3>(s, w, r)",
    0,
    x=(5, 1, 4),
    a=[2],
    w=W(1, 9, 4),
    r=W(1, 9, 3),
    why="steps in order",
)
