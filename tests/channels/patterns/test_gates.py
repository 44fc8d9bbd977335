"""Channels scaled, shifted and masked: by constants, by a branch, by a map of one channel."""

import pytest

from tests.support.assertions import check

TWO_CONVOLUTIONS = """
g (float[N,3,8,8] x) => (float[N,2,8,8] y)
<float[4,3,1,1] w, float[2,4,1,1] v, {constants}> {{
  a = Conv(x, w)
  {body}
  y = Conv(b, v)
}}
"""


@pytest.mark.parametrize(
    "gate",
    [
        "g = Sigmoid(k)",
        "g = HardSigmoid<alpha=0.1667>(k)",
        "h = Constant<value_float=3.0>() i = Add(k, h) j = Clip(i, zero, six) g = Div(j, six)",
    ],
    ids=["sigmoid", "hard sigmoid", "clip by hand"],
)
def test_squeeze_and_excite_with_swish(gate: str) -> None:
    check(
        f"""
        g (float[N,3,8,8] x) => (float[N,2,8,8] y)
        <float[4,3,1,1] w, float[4] b, float[4,1,3,3] d, float[2,4,1,1] r, float[2] rb,
         float[4,2,1,1] e, float[4] eb, float[2,4,1,1] v> {{
          zero = Constant<value_float=0.0>()
          six = Constant<value_float=6.0>()
          a = Conv(x, w, b)
          s = Sigmoid(a)
          t = Mul(a, s)
          c = Conv<group=4, pads=[1,1,1,1]>(t, d)
          p = GlobalAveragePool(c)
          squeeze = Conv(p, r, rb)
          q = Sigmoid(squeeze)
          sw = Mul(squeeze, q)
          k = Conv(sw, e, eb)
          {gate}
          m = Mul(c, g)
          y = Conv(m, v)
        }}
        """,
        a="abcd",
        c="abcd",
        squeeze="ef",
        k="abcd",
    )


def test_squeeze_and_excite_through_dense_layers() -> None:
    """As Keras and SENet write it: pooled, flattened, two matrices, and reshaped back."""
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y)
        <float[4,3,1,1] w, float[4,2] r, float[2,4] e, float[2,4,1,1] v> {
          a = Conv(x, w)
          p = GlobalAveragePool(a)
          f = Flatten(p)
          d = Gemm(f, r)
          q = Relu(d)
          u = MatMul(q, e)
          n = Sigmoid(u)
          s = Constant<value_ints=[-1,4,1,1]>()
          k = Reshape(n, s)
          m = Mul(a, k)
          y = Conv(m, v)
        }
        """,
        a="abcd",
    )


@pytest.mark.parametrize("shape", ["4,1,1", "1,4,1,1"])
@pytest.mark.parametrize("op", ["PRelu", "Mul", "Add", "Sub", "Div", "Max"])
def test_a_constant_for_each_channel(op: str, shape: str) -> None:
    constants = f"float[{shape}] k"
    check(TWO_CONVOLUTIONS.format(constants=constants, body=f"b = {op}(a, k)"), a="abcd")


@pytest.mark.parametrize("op", ["PRelu", "Mul", "Add", "Sub", "Div", "Max"])
def test_a_constant_for_each_channel_channels_last(op: str) -> None:
    body = f"t = Transpose<perm=[0,2,3,1]>(a) u = {op}(t, k) b = Transpose<perm=[0,3,1,2]>(u)"
    check(TWO_CONVOLUTIONS.format(constants="float[4] k", body=body), a="abcd")


def test_a_constant_for_each_column_ties_no_channel() -> None:
    check(TWO_CONVOLUTIONS.format(constants="float[8] k", body="b = Mul(a, k)"), a="abcd")


@pytest.mark.parametrize("op", ["Mul", "Add", "Max"])
def test_a_map_of_one_channel_ties_nothing(op: str) -> None:
    """Spatial attention: the map is one channel wide, which is no filter to choose."""
    body = f"h = Conv(x, u) q = Sigmoid(h) b = {op}(a, q)"
    check(
        TWO_CONVOLUTIONS.format(constants="float[1,3,1,1] u", body=body),
        a="abcd",
    )


@pytest.mark.parametrize(
    "body",
    [
        "b = Where(c, a, z)",
        "s = Shape(a) e = Expand(h, s) f = Greater(e, z) b = Where(f, a, z)",
        "s = Constant<value_ints=[1,4,1,1]>() e = Expand(h, s) b = Mul(a, e)",
        "s = Constant<value_ints=[1,4,1,1]>() e = Tile(h, s) b = Mul(a, e)",
        "b = Where(c, z, a)",
    ],
)
def test_a_mask_of_one_channel(body: str) -> None:
    body = f"h = Conv(x, u) z = Constant<value_float=0.0>() c = Greater(h, z) {body}"
    check(
        TWO_CONVOLUTIONS.format(constants="float[1,3,1,1] u", body=body),
        a="abcd",
    )


def test_spatial_attention_from_the_mean_and_largest_channel() -> None:
    """A mean over channels counts them: it keeps all of them."""
    body = """
      n = ReduceMean<axes=[1]>(a) l = ReduceMax<axes=[1]>(a) c = Concat<axis=1>(n, l)
      k = Conv<pads=[1,1,1,1]>(c, u) q = Sigmoid(k) b = Mul(a, q)
    """
    check(
        TWO_CONVOLUTIONS.format(constants="float[1,2,3,3] u", body=body),
        a="ABCD",
        why="feeds ReduceMean 'n', which reduces over these channels",
    )


def test_selective_kernels() -> None:
    """SKNet: two branches weighed against each other by a softmax over the branch."""
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y)
        <float[4,3,3,3] w1, float[4,3,5,5] w2, float[2,4,1,1] r, float[8,2,1,1] e,
         float[2,4,1,1] v> {
          a = Conv<pads=[1,1,1,1]>(x, w1)
          b = Conv<pads=[2,2,2,2]>(x, w2)
          i = Constant<value_ints=[1]>()
          a5 = Unsqueeze(a, i)
          b5 = Unsqueeze(b, i)
          ab = Concat<axis=1>(a5, b5)
          t = ReduceSum<keepdims=0>(ab, i)
          p = GlobalAveragePool(t)
          s = Conv(p, r)
          q = Relu(s)
          k = Conv(q, e)
          n = Constant<value_ints=[-1,2,4,1,1]>()
          k5 = Reshape(k, n)
          g = Softmax<axis=1>(k5)
          m = Mul(ab, g)
          o = ReduceSum<keepdims=0>(m, i)
          y = Conv(o, v)
        }
        """,
        a="abcd",
        b="abcd",
        s="ef",
        k="abcdabcd",
    )
