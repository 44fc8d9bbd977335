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
case("y = GatherND<batch_dims=1>(x, i)", 0, x=X, i=_EACH_SAMPLE, batch=1, why="indices name")
case(
    "g = GatherND<batch_dims=2>(x, i); y = Relu(g)",
    0,
    x=X,
    i=np.zeros((1, 4, 2), np.int64),
    batch=1,
    why="indices name",
)
_ELEMENTS = np.array([0, 2, -1, 4, 1, 0, 3] * 20).reshape(1, 4, 5, 7)
case("y = GatherElements<axis=3>(x, i)", 4, x=X, i=_ELEMENTS, batch=1)
case("y = GatherElements<axis=3>(x, i)", 0, x=X, i=_ELEMENTS[:, :3], batch=1, why="indices name")
case(
    "y = GatherElements<axis=1>(x, i)",
    0,
    opset=11,
    x=X,
    i=_ELEMENTS[..., :5] % 4,
    batch=1,
    why="indices name",
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
case("y, i = TopK<axis=2>(x, k)", 4, x=X, k=[3])
case("y, i = TopK<axis=-1, largest=0>(x, k)", 4, x=X, k=[2])
case("y, i = TopK<axis=1>(x, k)", 0, x=X, k=[2], why="compares these channels")
case("y, i = TopK(x, k)", 4, opset=10, x=X, k=[3])
case("y, i = TopK<k=3>(x)", 4, opset=9, x=X)
for _how in ("", "<exclusive=1>", "<reverse=1>", "<reverse=1, exclusive=1>"):
    case(f"y = CumSum{_how}(x, a)", 4, x=X, a=np.array(2))
    case(f"y = CumProd{_how}(x, a)", 4, opset=26, x=X, a=np.array(2))
case("y = CumSum(x, a)", 0, x=X, a=np.array(-3), why="accumulates over")
_ONTO = {"i": np.resize([4, -1], (1, 4, 2, 5)), "c": W(1, 4, 2, 5), "batch": 1}
case("y = Trilu(x)", 4, x=X)
case("y = Trilu<upper=0>(x, k)", 4, x=X, k=np.array(1))

case(_SCATTER.replace("Elements", "").replace(', reduction="add"', ""), 4, x=X, opset=9, **_ONTO)
case(
    "f = Flatten(x); e = EyeLike<k=1>(f); y = Relu(e)",
    0,
    x=(4,),
    batch=2,
    why="the size of its input",
)
_PLACES = "a = Sigmoid(x); b = Mul(a, d); i = Cast<to=7>(b); "
_HOT = {"d": np.float32(5), "v": np.array([0.5, 2.0], np.float32)}
case(_PLACES + "h = OneHot(i, d, v); y = Relu(h)", 4, x=X, **_HOT)
_HOT_BODY = "h = OneHot<axis=1>(i, d, v); y = Transpose<perm=[0, 2, 1]>(h)"
case(_PLACES + _HOT_BODY, 4, x=(4,), **_HOT)
_TURN = "t = Transpose<perm=[{0}]>(x); r = ReverseSequence(t, n); y = Transpose<perm=[{1}]>(r)"
case(_TURN.format("2, 0, 1, 3", "1, 2, 0, 3"), 4, x=X, n=[3], batch=1)
_TURN = "y = ReverseSequence<time_axis=1, batch_axis=0>(x, n)"
case(_TURN, 0, x=X, n=[3], batch=1, why="reverses the order")
_SOME = np.array([1, 0, 1, 1, 0], np.bool_)
case("y = Compress<axis=2>(x, c)", 4, x=X, c=_SOME)
case("y = Compress<axis=1>(x, c)", 6, x=(6, 5, 5), c=_SOME)
_LINE = "f = Compress(x, c); r = Reshape(f, s); y = Relu(r)"
case(_LINE, 4, x=X, c=np.resize([1, 1, 0, 0, 1], 100).astype(np.bool_), s=[1, -1, 15], batch=1)
case("y = NonZero(x)", 0, x=X, batch=1, why="as many rows as it finds")
_FOUND = "y = NonMaxSuppression{}(b, c, m, o, s)"
_BEST = {"m": [2], "o": np.array([0.3], np.float32), "s": np.array([-1], np.float32)}
for _kind in ("", "<center_point_box=1>"):
    _boxes = "b = Transpose<perm=[0, 2, 1]>(x); c = Identity(z); " + _FOUND.format(_kind)
    case(_boxes, 0, x=(4, 9), z=(3, 9), batch=1, why="as many rows as it finds", **_BEST)
_CROP = "y = CenterCropPad<axes=[2, 3]>(x, s)"
case(_CROP, 4, opset=18, x=X, s=[2, 8])
case("y = CenterCropPad(x, s)", 4, opset=18, x=X, s=[1, 4, 8, 2], batch=1)
case("y = CenterCropPad<axes=[1]>(x, s)", 0, opset=18, x=X, s=[3], why="crops or pads")

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
_AREAS = np.array([[0, 0, 1, 4, 4], [0, 2, 2, 2, 3], [0, -1, 0, 7, 2]], np.float32)
case("y = MaxRoiPool<pooled_shape=[2, 3], spatial_scale=0.9>(x, r)", 4, x=X, r=_AREAS)
_MOVE = "f = Reshape(x, t); g = AffineGrid(f, s); y = GridSample(z, g)"
_MOVED = {"t": [0, 2, 3], "s": [1, 4, 3, 7], "batch": 1, "opset": 20}
case(_MOVE, 4, x=(6, 1, 1), z=X, why="transformation of space", **_MOVED)
_BACK = "p, i = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(x); y = MaxUnpool"
_BACK += "<kernel_shape=[2, 2], strides=[2, 2]>(p, i)"
case(_BACK, 0, x=(4, 4, 4), why="of all channels")
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
_PLAIN = {"w": W(2, 3, 4), "r": W(2, 3, 3), "b": W(2, 6)}
_BOTH = 'y = RNN<direction="bidirectional", hidden_size=3>(t, w, r, b)'
case(_COLUMNS + _BOTH, 4, **_READ, **_PLAIN)
_PLAIN = {"w": W(1, 3, 4), "r": W(1, 3, 3)}
_RELU = 'y, h = RNN<activations=["Relu"], hidden_size=3>(t, w, r)'
case(_COLUMNS + _RELU, 4, batch=1, **_READ, **_PLAIN)
case(
    "s = Squeeze(x, a); y = GRU<hidden_size=3>(s, w, r)",
    0,
    x=(5, 1, 4),
    a=[2],
    w=W(1, 9, 4),
    r=W(1, 9, 3),
    why="steps in time",
)

# Spectra
for _name in ("Hann", "Hamming", "Blackman"):
    for _whole in (0, 1):
        case(f"w = {_name}Window<periodic={_whole}>(n); y = Mul(x, w)", 4, x=X, n=np.array(5))
_MEL = {"b": np.array(3), "n": np.array(8), "r": np.array(8000)}
_MEL |= {"f": np.float32(60), "g": np.float32(3900)}
case("m = MelWeightMatrix(b, n, r, f, g); y = MatMul(x, m)", 4, x=X, **_MEL)
case("y = DFT<axis=2>(x)", 4, x=(4, 5, 1))
case("y = DFT<axis=2, onesided=1>(x, n)", 4, x=(4, 5, 1), n=np.array(8))
case("y = DFT(x, , a)", 4, opset=20, x=(4, 5, 2), a=np.array(2))
case("y = DFT<inverse=1>(x)", 4, opset=20, x=(4, 5, 2))
case("y = DFT(x, , a)", 0, opset=20, x=(4, 5, 2), a=np.array(1), why="takes a spectrum")
_SOUND = "s = Squeeze(x, a); t = Unsqueeze(s, b); f = STFT{}(t, n, w); y = Relu(f)"
_WAVE = {"x": (1, 1, 12), "a": [1, 2], "b": [2], "n": np.array(3), "w": W(6)}
for _side in ("", "<onesided=0>"):
    case(_SOUND.format(_side), 0, **_WAVE)

# Attention
_SEQUENCE = "q = Transpose<perm=[0, 2, 1]>(x); k = Transpose<perm=[0, 2, 1]>(z); "
_SEQUENCE += "v = Transpose<perm=[0, 2, 1]>(u); "
_HEADS = "a = Attention<q_num_heads={}, kv_num_heads={}{}>(q, k, v{}); "
_HEADS += "y = Transpose<perm=[0, 2, 1]>(a)"
_TOKENS = {"x": (12, 5), "z": (12, 7), "u": (9, 7)}
_ALLOWED = np.tril(np.ones((5, 7), np.bool_), 1)
case(_SEQUENCE + _HEADS.format(3, 3, "", ""), 3, opset=23, **_TOKENS)
case(_SEQUENCE + _HEADS.format(3, 3, ", is_causal=1", ""), 3, opset=24, **_TOKENS)
case(_SEQUENCE + _HEADS.format(3, 3, ", scale=0.4", ", m"), 3, opset=24, m=_ALLOWED, **_TOKENS)
case(_SEQUENCE + _HEADS.format(3, 3, "", ""), 3, **_TOKENS, opset=25)
_TOKENS["x"] = (24, 5)
case(_SEQUENCE + _HEADS.format(6, 3, ", softcap=0.7", ", m"), 3, opset=23, m=W(6, 5, 7), **_TOKENS)
_PLANES = {"x": (4, 5, 6), "z": (4, 7, 6), "u": (4, 7, 3), "opset": 24}
case("y = Attention(x, z, u)", 4, **_PLANES)
_FEATURES = "q = Transpose<perm=[0, 3, 2, 1]>(x); k = Transpose<perm=[0, 3, 2, 1]>(z); "
_FEATURES += "v = Transpose<perm=[0, 3, 2, 1]>(u); a = Attention{}(q, k, v); "
_FEATURES += "y = Transpose<perm=[0, 3, 2, 1]>(a)"
_WIDE = {"x": (6, 5, 4), "z": (6, 7, 4), "u": (3, 7, 4), "opset": 24}
case(_FEATURES.format("<scale=0.3>"), 9, **_WIDE)
case(_FEATURES.format(""), 3, why="all features of a head", **_WIDE)
case("y = Attention(x, z, u, m)", 4, m=W(1, 4, 5, 7), **_PLANES)
_CACHED = "y, k, v = Attention(x, z, u, , p, r)"
case(_CACHED, 0, p=W(1, 4, 2, 6), r=W(1, 4, 2, 3), why="for the next call", batch=1, **_PLANES)
_ANGLES = {"c": np.cos(W(1, 5, 2)), "s": np.sin(W(1, 5, 2)), "opset": 23, "batch": 1}
for _how in ("", "<interleaved=1, rotary_embedding_dim=4>"):
    case(f"y = RotaryEmbedding{_how}(x, c, s)", 4, x=(4, 5, 4 if not _how else 6), **_ANGLES)
_ANGLES |= {"c": np.cos(W(9, 2)), "s": np.sin(W(9, 2)), "p": [[4, 0, 8, 1, 1]]}
_ROTATED = "t = Transpose<perm=[0, 2, 1]>(x); r = RotaryEmbedding<num_heads=3>(t, c, s, p); "
_ROTATED += "y = Transpose<perm=[0, 2, 1]>(r)"
case(_ROTATED, 3, x=(12, 5), **_ANGLES)
_ROTATED = "t = Transpose<perm=[0, 2, 3, 1]>(x); r = RotaryEmbedding(t, c, s, p); "
_ROTATED += "y = Transpose<perm=[0, 3, 1, 2]>(r)"
case(_ROTATED, 0, x=(4, 3, 5), why="turns features", **_ANGLES)
