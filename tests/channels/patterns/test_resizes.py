"""Space resized: by factors, to sizes, to the size of another tensor; and left open."""

import pytest

from tests.support.assertions import check

RESIZED = """
g (float[N,3,{h},{w}] x) => (float[N,2,I,J] y) <float[4,3,3,3] w, float[2,4,1,1] v> {{
  a = Conv<pads=[1,1,1,1]>(x, w)
  {body}
  y = Conv(b, v)
}}
"""
MODES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]


@pytest.mark.parametrize("how", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("mode", [*MODES, "half_pixel_symmetric", "tf_crop_and_resize"])
def test_every_coordinate_mode_by_scales(mode: str, how: str) -> None:
    body = f"""
      roi = Constant<value_floats=[0.,0.,0.1,0.1,1.,1.,0.9,0.9]>()
      k = Constant<value_floats=[1.,1.,2.,1.5]>()
      b = Resize<coordinate_transformation_mode="{mode}", mode="{how}">(a, roi, k)
    """
    header = '<ir_version: 9, opset_import: ["": 19]>'
    check(RESIZED.format(h=8, w=8, body=body), header=header, a="abcd")


@pytest.mark.parametrize("mode", MODES)
def test_every_coordinate_mode_to_sizes(mode: str) -> None:
    body = f"""
      k = Constant<value_ints=[{{batch}},4,12,5]>()
      b = Resize<coordinate_transformation_mode="{mode}", mode="linear">(a, , , k)
    """
    text = RESIZED.replace("float[N", "float[2").format(h=8, w=8, body=body.format(batch=2))
    check(text, a="abcd")


SIZES = {
    "sizes of another tensor": """
      z = AveragePool<kernel_shape=[3,3], strides=[2,2]>(a)
      n = Shape(a) i = Constant<value_ints=[2]>() j = Constant<value_ints=[4]>()
      hw = Slice(n, i, j) m = Shape(z) zero = Constant<value_ints=[0]>()
      nc = Slice(m, zero, i) s = Concat<axis=0>(nc, hw)
      b = Resize<mode="linear">(z, , , s)""",
    "scales computed from sizes": """
      z = AveragePool<kernel_shape=[3,3], strides=[2,2]>(a)
      n = Shape(a) i = Constant<value_ints=[2]>() j = Constant<value_ints=[4]>()
      hw = Slice(n, i, j) m = Shape(z) zw = Slice(m, i, j)
      f0 = Cast<to=1>(hw) f1 = Cast<to=1>(zw) f = Div(f0, f1)
      one = Constant<value_floats=[1.,1.]>() k = Concat<axis=0>(one, f)
      b = Resize<mode="linear">(z, , k)""",
    "twice the size, computed": """
      n = Shape(a) i = Constant<value_int=2>() j = Constant<value_int=3>()
      h0 = Gather(n, i) w0 = Gather(n, j) two = Constant<value_float=2.0>()
      h1 = Cast<to=1>(h0) h2 = Mul(h1, two) h3 = Cast<to=1>(h2) h4 = Floor(h3)
      w1 = Cast<to=1>(w0) w2 = Mul(w1, two) w3 = Cast<to=1>(w2) w4 = Floor(w3)
      k = Constant<value_ints=[0]>()
      h5 = Unsqueeze(h4, k) w5 = Unsqueeze(w4, k) hw = Concat<axis=0>(h5, w5)
      t = Cast<to=7>(hw) m = Shape(a) e = Constant<value_ints=[2]>() nc = Slice(m, k, e)
      s = Concat<axis=0>(nc, t)
      b = Resize<mode="nearest", nearest_mode="floor",
                 coordinate_transformation_mode="asymmetric">(a, , , s)""",
    "scales": 'k = Constant<value_floats=[1.,1.,2.,2.]>() b = Resize<mode="linear">(a, , k)',
}


@pytest.mark.parametrize("body", SIZES.values(), ids=list(SIZES))
def test_a_resize_of_dynamic_height_and_width(body: str) -> None:
    check(RESIZED.format(h="H", w="W", body=body), sizes=(9, 14), a="abcd")


@pytest.mark.parametrize("body", SIZES.values(), ids=list(SIZES))
def test_a_resize_of_static_height_and_width(body: str) -> None:
    check(RESIZED.format(h=9, w=9, body=body), a="abcd")


def test_a_resize_of_named_axes() -> None:
    body = """
      s = Constant<value_ints=[12,5]>() b = Resize<axes=[2,3], mode="linear">(a, , , s)
    """
    header = '<ir_version: 9, opset_import: ["": 19]>'
    check(RESIZED.format(h="H", w="W", body=body), header=header, sizes=(8, 13), a="abcd")


def test_a_resize_of_channels_holds_them() -> None:
    text = """
    g (float[N,3,8,8] x) => (float[N,2,8,8] y) <float[4,3,1,1] w, float[2,8,1,1] v> {
      a = Conv(x, w)
      k = Constant<value_floats=[1.,2.,1.,1.]>()
      b = Resize(a, , k)
      y = Conv(b, v)
    }
    """
    check(text, a="ABCD", why="feeds Resize 'b', which resizes the axis of these channels")


def test_a_feature_pyramid_adds_what_is_resized_to_what_is_there() -> None:
    check(
        """
        g (float[N,3,H,W] x) => (float[N,2,H,W] y)
        <float[4,3,3,3] w1, float[5,4,3,3] w2, float[3,4,1,1] l1, float[3,5,1,1] l2,
         float[2,3,1,1] v> {
          c1 = Conv<pads=[1,1,1,1]>(x, w1)
          c2 = Conv<pads=[1,1,1,1], strides=[2,2]>(c1, w2)
          p1 = Conv(c1, l1)
          p2 = Conv(c2, l2)
          n = Shape(p1)
          i = Constant<value_ints=[2]>()
          j = Constant<value_ints=[4]>()
          hw = Slice(n, i, j)
          m = Shape(p2)
          o = Constant<value_ints=[0]>()
          nc = Slice(m, o, i)
          s = Concat<axis=0>(nc, hw)
          u = Resize<mode="nearest">(p2, , , s)
          t = Add(p1, u)
          y = Conv(t, v)
        }
        """,
        sizes=(8, 11),
        c1="abcd",
        c2="efghi",
        p1="jkl",
        p2="jkl",
    )


def test_a_u_net() -> None:
    check(
        """
        g (float[N,3,H,W] x) => (float[N,2,H,W] y)
        <float[3,3,3,3] w1, float[4,3,3,3] w2, float[4,3,2,2] up, float[3] ub,
         float[4,6,3,3] w3, float[2,4,1,1] v> {
          a = Conv<pads=[1,1,1,1]>(x, w1)
          p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)
          b = Conv<pads=[1,1,1,1]>(p, w2)
          u = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(b, up, ub)
          c = Concat<axis=1>(a, u)
          d = Conv<pads=[1,1,1,1]>(c, w3)
          y = Conv(d, v)
        }
        """,
        sizes=(8, 12),
        a="abc",
        b="defg",
        u="hij",
        d="klmn",
    )


def test_padding_to_the_size_of_another_tensor() -> None:
    """A decoder pads what came up to the height and width of what was there."""
    check(
        """
        g (float[N,3,H,W] x) => (float[N,2,H,W] y)
        <float[3,3,3,3] w1, float[3,3,2,2] up, float[2,6,1,1] v> {
          a = Conv<pads=[1,1,1,1]>(x, w1)
          p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)
          u = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(p, up)
          n = Shape<start=2>(a)
          m = Shape<start=2>(u)
          d = Sub(n, m)
          k = Constant<value_ints=[0,0]>()
          zero = Constant<value_ints=[0,0]>()
          q = Concat<axis=0>(k, zero, k, d)
          e = Pad(u, q)
          c = Concat<axis=1>(a, e)
          y = Conv(c, v)
        }
        """,
        sizes=(8, 11),
        a="abc",
        u="def",
    )


def test_a_global_context_is_resized_to_the_features() -> None:
    """DeepLab's image pooling: one pixel, spread over the map and joined."""
    check(
        """
        g (float[N,3,H,W] x) => (float[N,2,H,W] y)
        <float[4,3,3,3] w1, float[3,4,1,1] w2, float[2,7,1,1] v> {
          a = Conv<pads=[1,1,1,1]>(x, w1)
          g = GlobalAveragePool(a)
          p = Conv(g, w2)
          n = Shape(a)
          i = Constant<value_ints=[2]>()
          j = Constant<value_ints=[4]>()
          hw = Slice(n, i, j)
          m = Shape(p)
          o = Constant<value_ints=[0]>()
          nc = Slice(m, o, i)
          s = Concat<axis=0>(nc, hw)
          u = Resize<mode="linear">(p, , , s)
          c = Concat<axis=1>(a, u)
          y = Conv(c, v)
        }
        """,
        sizes=(8, 11),
        a="abcd",
        p="efg",
    )


def test_a_global_context_is_expanded_to_the_features() -> None:
    check(
        """
        g (float[N,3,H,W] x) => (float[N,2,H,W] y)
        <float[4,3,3,3] w1, float[3,4,1,1] w2, float[2,7,1,1] v> {
          a = Conv<pads=[1,1,1,1]>(x, w1)
          g = GlobalAveragePool(a)
          p = Conv(g, w2)
          n = Shape(a)
          i = Constant<value_ints=[2]>()
          j = Constant<value_ints=[4]>()
          hw = Slice(n, i, j)
          k = Constant<value_ints=[1,1]>()
          s = Concat<axis=0>(k, hw)
          u = Expand(p, s)
          c = Concat<axis=1>(a, u)
          y = Conv(c, v)
        }
        """,
        sizes=(8, 11),
        a="abcd",
        p="efg",
    )


def test_coordinates_joined_to_the_channels() -> None:
    """CoordConv: two maps that nobody makes are read beside the filters."""
    check(
        """
        g (float[N,3,8,8] x, float[N,2,8,8] where) => (float[N,2,8,8] y)
        <float[4,3,1,1] w, float[2,6,1,1] v> {
          a = Conv(x, w)
          c = Concat<axis=1>(a, where)
          y = Conv(c, v)
        }
        """,
        a="abcd",
    )
