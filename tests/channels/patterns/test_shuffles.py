"""Channels moved about: shuffled, split, sliced, gathered, folded into space; and groups."""

import pytest

from tests.support.assertions import check

SHUFFLED = """
g (float[N,3,8,8] x) => (float[N,2,8,8] y)
<float[8,3,1,1] w, float[8,1,3,3] d, float[2,8,1,1] v> {{
  a = Conv(x, w)
  {shuffle}
  b = Conv<group=8, pads=[1,1,1,1]>(u, d)
  y = Conv(b, v)
}}
"""
CONSTANT_BOUNDS = """
  s = Constant<value_ints=[{batch},2,4,8,8]>() r = Reshape(a, s)
  t = Transpose<perm=[0,2,1,3,4]>(r)
  q = Constant<value_ints=[{batch},8,8,8]>() u = Reshape(t, q)
"""
COMPUTED_BOUNDS = """
  zero = Constant<value_int=0>() one = Constant<value_int=1>() two = Constant<value_int=2>()
  three = Constant<value_int=3>() first = Constant<value_ints=[0]>()
  groups = Constant<value_ints=[2]>() all = Constant<value_ints=[-1]>()
  s0 = Shape(a) n0 = Gather(s0, zero) n = Unsqueeze(n0, first)
  s1 = Shape(a) c0 = Gather(s1, one)
  s2 = Shape(a) h0 = Gather(s2, two) h = Unsqueeze(h0, first)
  s3 = Shape(a) w0 = Gather(s3, three) wide = Unsqueeze(w0, first)
  per = Div(c0, two) p = Unsqueeze(per, first)
  five = Concat<axis=0>(n, groups, p, h, wide)
  r = Reshape(a, five)
  t = Transpose<perm=[0,2,1,3,4]>(r)
  four = Concat<axis=0>(n, all, h, wide)
  u = Reshape(t, four)
"""
FLOOR_DIVIDED = """
  zero = Constant<value_int=0>() one = Constant<value_int=1>() first = Constant<value_ints=[0]>()
  groups = Constant<value_ints=[2]>() all = Constant<value_ints=[-1]>()
  s0 = Shape(a) n0 = Gather(s0, zero) n = Unsqueeze(n0, first)
  c0 = Gather(s0, one)
  k = Constant<value_int=2>() f0 = Cast<to=1>(c0) f1 = Cast<to=1>(k) f2 = Div(f0, f1)
  f3 = Floor(f2) per = Cast<to=7>(f3) p = Unsqueeze(per, first)
  from = Constant<value_ints=[2]>() to = Constant<value_ints=[4]>() space = Slice(s0, from, to)
  five = Concat<axis=0>(n, groups, p, space)
  r = Reshape(a, five)
  t = Transpose<perm=[0,2,1,3,4]>(r)
  c1 = Unsqueeze(c0, first)
  four = Concat<axis=0>(n, c1, space)
  u = Reshape(t, four)
"""


@pytest.mark.parametrize(
    "shuffle",
    [
        CONSTANT_BOUNDS.format(batch=-1),
        CONSTANT_BOUNDS.format(batch=0),
        COMPUTED_BOUNDS,
        FLOOR_DIVIDED,
    ],
    ids=["open batch", "copied batch", "computed", "floor divided"],
)
def test_a_channel_shuffle(shuffle: str) -> None:
    """The order that is left is written down in place of the shuffle: every channel may go."""
    check(SHUFFLED.format(shuffle=shuffle), a="abcdefgh", b="aebfcgdh")


def test_a_channel_shuffle_of_open_height_and_width() -> None:
    """Counts written beside sizes that are read at run time."""
    text = SHUFFLED.replace("[N,3,8,8]", "[N,3,H,W]").replace("[N,2,8,8]", "[N,2,I,J]")
    written = COMPUTED_BOUNDS.replace("per = Div(c0, two)", "per = Constant<value_int=4>()")
    check(text.format(shuffle=written), sizes=(8, 11), a="abcdefgh", b="aebfcgdh")


def test_shufflenet_v1() -> None:
    """Grouped, shuffled, depthwise, grouped: with a residual."""
    check(
        f"""
        g (float[N,3,8,8] x) => (float[N,2,8,8] y)
        <float[8,3,1,1] w, float[8,4,1,1] g1, float[8,1,3,3] d, float[8,4,1,1] g2,
         float[2,8,1,1] v> {{
          stem = Conv(x, w)
          a0 = Conv<group=2>(stem, g1)
          a = Relu(a0)
          {COMPUTED_BOUNDS}
          b = Conv<group=8, pads=[1,1,1,1]>(u, d)
          c = Conv<group=2>(b, g2)
          o = Add(stem, c)
          y = Conv(o, v)
        }}
        """,
        stem="abcdabcd",
        a0="efefefef",
        b="eeffeeff",
        c="abcdabcd",
    )


SHUFFLENET_V2 = """
g (float[N,3,8,8] x) => (float[N,2,8,8] y)
<float[8,3,1,1] w, float[4,4,1,1] p1, float[4,1,3,3] d, float[4,4,1,1] p2, float[2,8,1,1] v> {{
  stem = Conv(x, w)
  {halves}
  a1 = Conv(right, p1)
  b1 = Conv<group=4, pads=[1,1,1,1]>(a1, d)
  c1 = Conv(b1, p2)
  a = Concat<axis=1>(left, c1)
  {shuffle}
  y = Conv(u, v)
}}
"""
CHUNKED = """
  at = Constant<value_int=1>() dims = Shape(stem) wide0 = Gather(dims, at)
  plus = Constant<value_int=1>() odd = Add(wide0, plus) halve = Constant<value_int=2>()
  size = Div(odd, halve)
  axis = Constant<value_ints=[1]>() i0 = Constant<value_int=0>() i1 = Constant<value_int=1>()
  i2 = Constant<value_int=2>() from0 = Mul(size, i0) to0 = Mul(size, i1) to1 = Mul(size, i2)
  k = Constant<value_ints=[0]>()
  b0 = Unsqueeze(from0, k) e0 = Unsqueeze(to0, k) e1 = Unsqueeze(to1, k)
  left = Slice(stem, b0, e0, axis)
  right = Slice(stem, e0, e1, axis)
"""


@pytest.mark.parametrize(
    "halves",
    [
        "left, right = Split<axis=1>(stem)",
        "sizes = Constant<value_ints=[4,4]>() left, right = Split<axis=1>(stem, sizes)",
        CHUNKED,
    ],
    ids=["Split", "Split by sizes", "chunk computed at run time"],
)
def test_shufflenet_v2(halves: str) -> None:
    check(
        SHUFFLENET_V2.format(halves=halves, shuffle=COMPUTED_BOUNDS),
        stem="abcdefgh",
        a1="ijkl",
        b1="ijkl",
        c1="mnop",
    )


SLICES = {
    "Split of unequal parts": "n = Constant<value_ints=[2,4]>() p, q = Split<axis=1>(a, n)",
    "Slice": """
      i = Constant<value_ints=[0]>() j = Constant<value_ints=[2]>() m = Constant<value_ints=[1]>()
      e = Constant<value_ints=[9223372036854775807]>()
      p = Slice(a, i, j, m) q = Slice(a, j, e, m)
    """,
    "Slice from behind": """
      i = Constant<value_ints=[0]>() j = Constant<value_ints=[-4]>() m = Constant<value_ints=[-3]>()
      e = Constant<value_ints=[6]>() n = Constant<value_ints=[1]>()
      p = Slice(a, i, j, m, n) q = Slice(a, j, e, m, n)
    """,
    "Gather": """
      i = Constant<value_ints=[0,1]>() j = Constant<value_ints=[-4,3,4,-1]>()
      p = Gather<axis=1>(a, i) q = Gather<axis=1>(a, j)
    """,
}


@pytest.mark.parametrize("parts", SLICES.values(), ids=list(SLICES))
def test_parts_go_into_a_residual_and_a_concat(parts: str) -> None:
    check(
        f"""
        g (float[N,3,8,8] x) => (float[N,2,8,8] y)
        <float[6,3,1,1] w, float[4,4,3,3] u, float[2,6,1,1] v> {{
          a = Conv(x, w)
          {parts}
          b = Conv<pads=[1,1,1,1]>(q, u)
          s = Add(q, b)
          c = Concat<axis=1>(s, p)
          y = Conv(c, v)
        }}
        """,
        a="abcdef",
        b="cdef",
    )


def test_overlapping_and_permuted_gathers() -> None:
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y) <float[4,3,1,1] w, float[2,6,1,1] v> {
          a = Conv(x, w)
          i = Constant<value_ints=[3,1,0]>()
          j = Constant<value_ints=[1,2,1]>()
          p = Gather<axis=1>(a, i)
          q = Gather<axis=1>(a, j)
          c = Concat<axis=1>(p, q)
          y = Conv(c, v)
        }
        """,
        a="abcd",
    )


def test_a_sum_with_its_own_reverse_ties_mirror_images() -> None:
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y) <float[4,3,1,1] w, float[2,4,1,1] v> {
          a = Conv(x, w)
          i = Constant<value_ints=[3,2,1,0]>()
          r = Gather<axis=1>(a, i)
          s = Add(a, r)
          y = Conv(s, v)
        }
        """,
        a="abba",
    )


def test_one_channel_gathered_by_a_scalar_stays_unless_others_remain() -> None:
    """`x[:, 1]` in torch: the axis is gone, what is left of it is this one channel."""
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y) <float[4,3,1,1] w, float[2,4,1,1] v> {
          a = Conv(x, w)
          i = Constant<value_int=1>()
          m = Gather<axis=1>(a, i)
          k = Constant<value_ints=[1]>()
          n = Unsqueeze(m, k)
          s = Sigmoid(n)
          b = Mul(a, s)
          y = Conv(b, v)
        }
        """,
        a="aBcd",
        why="alone fills 'm'",
    )


@pytest.mark.parametrize(
    ("axis", "rows", "indices"), [(2, "[3,2]", "0,1,2,3,4,5"), (1, "[2,3]", "0,2,4,1,3,5")]
)
def test_a_matrix_of_indices_whose_pairs_are_added(axis: int, rows: str, indices: str) -> None:
    """What is summed has to stay whole; the other axis of the matrix goes position by position."""
    check(
        f"""
        g (float[N,3,8,8] x) => (float[N,2,8,8] y) <float[6,3,1,1] w, float[2,3,1,1] v> {{
          a = Conv(x, w)
          i = Constant<value=int64{rows} {{{indices}}}>()
          p = Gather<axis=1>(a, i)
          k = Constant<value_ints=[{axis}]>()
          s = ReduceSum<keepdims=0>(p, k)
          y = Conv(s, v)
        }}
        """,
        a="aabbcc",
    )


def test_c2f_and_sppf() -> None:
    """YOLO: a split whose second half goes through bottlenecks that are all kept, then pooled."""
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y)
        <float[4,3,1,1] w, float[2,2,3,3] b1, float[2,2,3,3] b2, float[3,6,1,1] e,
         float[2,12,1,1] v> {
          a = Conv(x, w)
          p, q = Split<axis=1>(a)
          r = Conv<pads=[1,1,1,1]>(q, b1)
          s = Conv<pads=[1,1,1,1]>(r, b2)
          t = Add(q, s)
          c = Concat<axis=1>(p, q, t)
          f = Conv(c, e)
          m1 = MaxPool<kernel_shape=[5,5], pads=[2,2,2,2]>(f)
          m2 = MaxPool<kernel_shape=[5,5], pads=[2,2,2,2]>(m1)
          m3 = MaxPool<kernel_shape=[5,5], pads=[2,2,2,2]>(m2)
          d = Concat<axis=1>(f, m1, m2, m3)
          y = Conv(d, v)
        }
        """,
        a="abcd",
        r="ef",
        s="cd",
        f="ghi",
    )


@pytest.mark.parametrize(("mode", "tied"), [("DCR", "abcabcabcabc"), ("CRD", "aaaabbbbcccc")])
def test_depth_to_space(mode: str, tied: str) -> None:
    check(
        f"""
        g (float[N,3,8,8] x) => (float[N,2,16,16] y) <float[12,3,1,1] w, float[2,3,1,1] v> {{
          a = Conv(x, w)
          d = DepthToSpace<blocksize=2, mode="{mode}">(a)
          y = Conv(d, v)
        }}
        """,
        a=tied,
    )


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_takes_whole_channels_not_rows_of_pixels(mode: str) -> None:
    """Two channels out of blocks of nine: there are more rows than channels to tell apart."""
    check(
        f"""
        g (float[N,3,8,8] x) => (float[N,2,24,24] y, float[N,3] z)
        <float[18,3,1,1] w, float[2,2,1,1] v, float[9,3,1,1] w1, float[576,3] d> {{
          a = Conv(x, w)
          b = DepthToSpace<blocksize=3, mode="{mode}">(a)
          y = Conv(b, v)
          c = Conv(x, w1)
          e = DepthToSpace<blocksize=3, mode="{mode}">(c)
          f = Flatten(e)
          z = Gemm(f, d)
        }}
        """,
        a="ab" * 9 if mode == "DCR" else "a" * 9 + "b" * 9,
        c="CDEFGHIJK",
        why="alone fills 'e'",
    )


def test_space_to_depth() -> None:
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,4,4] y) <float[3,3,1,1] w, float[2,12,1,1] v> {
          a = Conv(x, w)
          d = SpaceToDepth<blocksize=2>(a)
          y = Conv(d, v)
        }
        """,
        a="abc",
    )


def test_focus_slices_of_space_into_channels() -> None:
    """YOLOv5's Focus written out: every second row and column, four times, joined."""
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,4,4] y) <float[3,3,1,1] w, float[2,6,1,1] v> {
          a = Conv(x, w)
          e = Constant<value_ints=[9223372036854775807,9223372036854775807]>()
          k = Constant<value_ints=[2,3]>()
          s = Constant<value_ints=[2,2]>()
          i = Constant<value_ints=[0,0]>()
          j = Constant<value_ints=[1,0]>()
          p = Slice(a, i, e, k, s)
          q = Slice(a, j, e, k, s)
          c = Concat<axis=1>(p, q)
          y = Conv(c, v)
        }
        """,
        a="abc",
    )
