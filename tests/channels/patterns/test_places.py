"""Values read at places: samples of a grid, pixels by index, products with matrices."""

import pytest

from tests.support.assertions import check

AROUND = """
g (float[N,3,8,8] x{inputs}) => (float[N,2,I,J] y)
<float[4,3,1,1] w, float[2,4,1,1] v{constants}> {{
  a = Conv(x, w)
  {body}
  y = Conv(b, v)
}}
"""


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_a_grid_sample_of_an_input(mode: str) -> None:
    body = f'b = GridSample<mode="{mode}", padding_mode="border">(a, grid)'
    check(
        AROUND.format(inputs=", float[N,5,6,2] grid", constants="", body=body), exact=1e-4, a="abcd"
    )


def test_a_grid_that_is_computed_stays() -> None:
    """A spatial transformer: its two coordinates are no channels to choose from."""
    body = """
      h = Conv(x, k) t = Transpose<perm=[0,2,3,1]>(h) q = Tanh(t) b = GridSample(a, q)
    """
    text = AROUND.format(inputs="", constants=", float[2,3,1,1] k", body=body)
    check(
        text,
        why="feeds GridSample 'b', which reads these channels as coordinates",
        a="abcd",
        h="YZ",
    )


def test_pixels_by_constant_places_with_channels_last() -> None:
    """An adaptive pool, or an upsampling, that an exporter wrote as one read of many pixels."""
    body = """
      t = Transpose<perm=[2,3,0,1]>(a)
      i = Constant<value=int64[2,2,2] {0,1, 4,4, 2,-1, 3,0}>()
      g = GatherND(t, i) b = Transpose<perm=[2,3,0,1]>(g)
    """
    check(AROUND.format(inputs="", constants="", body=body), a="abcd")


def test_rows_and_columns_gathered_one_after_the_other() -> None:
    body = """
      i = Constant<value_ints=[0,0,1,1,2,2]>() r = Gather<axis=2>(a, i) b = Gather<axis=-1>(r, i)
    """
    check(AROUND.format(inputs="", constants="", body=body), a="abcd")


def test_a_dense_layer_for_each_pixel_between_convolutions() -> None:
    """A pointwise MatMul, channels last: its units are filters too."""
    body = """
      t = Transpose<perm=[0,2,3,1]>(a) m = MatMul(t, k) o = Add(m, k0)
      b = Transpose<perm=[0,3,1,2]>(o)
    """
    text = AROUND.replace("float[2,4,1,1] v", "float[2,5,1,1] v")
    check(
        text.format(inputs="", constants=", float[4,5] k, float[5] k0", body=body),
        a="abcd",
        m="efghi",
    )


def test_a_product_over_space_leaves_channels_apart() -> None:
    body = "b = MatMul(a, k)"
    check(AROUND.format(inputs="", constants=", float[8,6] k", body=body), a="abcd", b="UVWXYZ")


def test_attention_holds_what_its_products_sum_over_and_frees_the_values() -> None:
    check(
        """
        g (float[N,3,4,4] x) => (float[N,2,4,4] y)
        <float[4,3,1,1] wq, float[4,3,1,1] wk, float[5,3,1,1] wv, float[2,5,1,1] v> {
          q = Conv(x, wq)
          k = Conv(x, wk)
          u = Conv(x, wv)
          s = Constant<value_ints=[0,0,-1]>()
          q1 = Reshape(q, s)
          k1 = Reshape(k, s)
          u1 = Reshape(u, s)
          t = Transpose<perm=[0,2,1]>(q1)
          m = MatMul(t, k1)
          p = Softmax<axis=-1>(m)
          pt = Transpose<perm=[0,2,1]>(p)
          o = MatMul(u1, pt)
          r = Constant<value_ints=[0,-1,4,4]>()
          b = Reshape(o, r)
          y = Conv(b, v)
        }
        """,
        why="sums products",
        q="ABCD",
        k="ABCD",
        u="ijklm",
    )
