"""From images to vectors and back: flattened, reshaped, in either layout."""

import pytest

from tests.support.assertions import check

CLASSIFIER = """
g (float[{batch},3,4,4] x) => (float[{batch},5] y)
<float[4,3,3,3] w, float[16,5] v, float[5,16] vt, float[5] b> {{
  a = Conv(x, w)
  {body}
}}
"""
TO_ROWS = {
    "Flatten": "f = Flatten(a) y = Gemm(f, v, b)",
    "Flatten, transposed weight": "f = Flatten(a) y = Gemm<transB=1>(f, vt, b)",
    "Reshape": "s = Constant<value_ints=[-1,16]>() f = Reshape(a, s) y = MatMul(f, v)",
    "Reshape copying the batch": "s = Constant<value_ints=[0,-1]>() f = Reshape(a, s) "
    "y = Gemm(f, v)",
    "Reshape to a computed shape": """
      n = Shape(a) zero = Constant<value_int=0>() k = Constant<value_ints=[0]>()
      n0 = Gather(n, zero) n1 = Unsqueeze(n0, k) wide = Constant<value_ints=[16]>()
      s = Concat<axis=0>(n1, wide) f = Reshape(a, s) y = MatMul(f, v)""",
    "Reshape to computed products": """
      n = Shape(a) i = Constant<value_ints=[0]>() j = Constant<value_ints=[1]>()
      e = Constant<value_ints=[4]>() head = Slice(n, i, j) tail = Slice(n, j, e)
      p = ReduceProd<keepdims=1>(tail) s = Concat<axis=0>(head, p) f = Reshape(a, s)
      y = MatMul(f, v)""",
    "channels last": "t = Transpose<perm=[0,2,3,1]>(a) f = Flatten(t) y = Gemm(f, v, b)",
    "channels last, Reshape": "t = Transpose<perm=[0,2,3,1]>(a) s = Constant<value_ints=[-1,16]>()"
    " f = Reshape(t, s) y = MatMul(f, v)",
    "pooled and squeezed": """
      p = GlobalAveragePool(a) k = Constant<value_ints=[2,3]>() q = Squeeze(p, k)
      i = Constant<value_ints=[0,1,2,3,0,1,2,3,0,1,2,3,0,1,2,3]>() f = Gather<axis=1>(q, i)
      y = MatMul(f, v)""",
}


@pytest.mark.parametrize("body", TO_ROWS.values(), ids=list(TO_ROWS))
def test_a_filter_owns_its_rows_of_the_dense_weight(body: str) -> None:
    check(CLASSIFIER.format(batch="N", body=body), a="abcd")


def test_a_reshape_with_a_hard_coded_batch() -> None:
    body = "s = Constant<value_ints=[1,16]>() f = Reshape(a, s) y = MatMul(f, v)"
    check(CLASSIFIER.format(batch=1, body=body), a="abcd")


def test_a_hard_coded_batch_above_one() -> None:
    body = "s = Constant<value_ints=[2,-1]>() f = Reshape(a, s) y = MatMul(f, v)"
    check(CLASSIFIER.format(batch=2, body=body), a="abcd")


def test_flattened_before_a_concat_with_another_input() -> None:
    check(
        """
        g (float[N,3,4,4] x, float[N,6] m) => (float[N,5] y)
        <float[4,3,3,3] w, float[22,5] v, float[22] s, float[22] o> {
          a = Conv(x, w)
          f = Flatten(a)
          c = Concat<axis=1>(f, m)
          n = Mul(c, s)
          k = Add(n, o)
          y = Gemm(k, v)
        }
        """,
        a="abcd",
    )


def test_a_normalised_flatten_ties_what_the_filter_owns() -> None:
    """BatchNormalization after Flatten: sixteen statistics, four for each filter."""
    check(
        """
        g (float[N,3,4,4] x) => (float[N,5] y)
        <float[4,3,3,3] w, float[16] s, float[16] o, float[16] m, float[16] var, float[16,5] v> {
          a = Conv(x, w)
          f = Flatten(a)
          n = BatchNormalization(f, s, o, m, var)
          y = Gemm(n, v)
        }
        """,
        a="abcd",
    )


def test_two_layouts_of_one_layer() -> None:
    """Read channels first by a convolution, and channels last by a dense layer for each pixel."""
    check(
        """
        g (float[N,3,4,4] x) => (float[N,2,4,4] y, float[N,4,4,5] z)
        <float[4,3,1,1] w, float[2,4,1,1] v, float[4,5] d> {
          a = Conv(x, w)
          y = Conv(a, v)
          t = Transpose<perm=[0,2,3,1]>(a)
          z = MatMul(t, d)
        }
        """,
        a="abcd",
    )


def test_a_network_of_channels_last_with_a_transpose_around_each_convolution() -> None:
    """TensorFlow's exporters, when nothing cleans up after them."""
    check(
        """
        g (float[N,8,8,3] x) => (float[N,5] y)
        <float[4,3,3,3] w, float[4] k, float[6,4,3,3] u, float[6] o, float[24,5] v> {
          x1 = Transpose<perm=[0,3,1,2]>(x)
          a = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x1, w)
          a1 = Transpose<perm=[0,2,3,1]>(a)
          a2 = Mul(a1, k)
          a3 = Relu(a2)
          b0 = Transpose<perm=[0,3,1,2]>(a3)
          b = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(b0, u)
          b1 = Transpose<perm=[0,2,3,1]>(b)
          b2 = Add(b1, o)
          s = Constant<value_ints=[-1,24]>()
          f = Reshape(b2, s)
          y = MatMul(f, v)
        }
        """,
        a="abcd",
        b="efghij",
    )


def test_space_as_a_sequence_and_back() -> None:
    """Channels ride through `flatten(2).transpose(1, 2)` and its inverse."""
    check(
        """
        g (float[N,3,4,4] x) => (float[N,2,4,4] y)
        <float[4,3,1,1] w, float[4] k, float[2,4,1,1] v> {
          a = Conv(x, w)
          s = Constant<value_ints=[0,0,-1]>()
          f = Reshape(a, s)
          t = Transpose<perm=[0,2,1]>(f)
          m = Mul(t, k)
          u = Transpose<perm=[0,2,1]>(m)
          q = Constant<value_ints=[-1,4,4,4]>()
          r = Reshape(u, q)
          y = Conv(r, v)
        }
        """,
        a="abcd",
    )


def test_the_distribution_focal_loss_head_keeps_its_bins() -> None:
    """YOLOv8: four sides of a box, each a softmax over bins; only what comes before may go."""
    check(
        """
        g (float[N,3,4,4] x) => (float[N,4,16] y)
        <float[5,3,1,1] w, float[16,5,1,1] h, float[1,4,1,1] bins> {
          a = Conv(x, w)
          b = Conv(a, h)
          s = Constant<value_ints=[-1,4,4,16]>()
          r = Reshape(b, s)
          t = Transpose<perm=[0,2,1,3]>(r)
          p = Softmax<axis=1>(t)
          d = Conv(p, bins)
          q = Constant<value_ints=[-1,4,16]>()
          y = Reshape(d, q)
        }
        """,
        a="abcde",
        b="FFFFGGGGHHHHIIII",
    )
