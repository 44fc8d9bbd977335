"""Statistics and norms: over space they leave channels apart, over channels they hold them."""

import pytest

from tests.support.assertions import check

AROUND = """
g (float[N,3,8,8] x) => (float[N,2,8,8] y)
<float[4,3,1,1] w, float[4,1,1] k, float[4,1,1] o, float[4] k1, float[4] o1, float[4] m1,
 float[4] var1, float[8] row, float[2,4,1,1] v> {{
  a = Conv(x, w)
  {body}
  y = Conv(b, v)
}}
"""
BY_HAND = """
  m = ReduceMean<axes={axes}>(a) d = Sub(a, m) two = Constant<value_float=2.0>()
  q = Pow(d, two) s2 = ReduceMean<axes={axes}>(q) eps = Constant<value_float=0.00001>()
  e = Add(s2, eps) r = Sqrt(e) n = Div(d, r) g = Mul(n, k) b = Add(g, o)
"""
FREE = {
    "over space by hand": BY_HAND.format(axes=[2, 3]),
    "over space from behind": BY_HAND.format(axes=[-1, -2]),
    "InstanceNormalization": "b = InstanceNormalization(a, k1, o1)",
    "LpNormalization of rows": "b = LpNormalization<axis=-1, p=2>(a)",
    "BatchNormalization": "b = BatchNormalization(a, k1, o1, m1, var1)",
    "BatchNormalization as Mul and Add": "g = Mul(a, k) b = Add(g, o)",
    "GlobalLpPool": "p = GlobalLpPool(a) e = Exp(p) b = Div(a, e)",
    "LayerNormalization of rows": "b = LayerNormalization<axis=3>(a, row)",
    "squared by itself": "b = Mul(a, a)",
}


@pytest.mark.parametrize("body", FREE.values(), ids=list(FREE))
def test_statistics_of_each_channel_leave_channels_apart(body: str) -> None:
    check(AROUND.format(body=body), a="abcd")


HELD = {
    "by hand": (
        BY_HAND.format(axes=[1]),
        "feeds ReduceMean 'm', which reduces over these channels",
    ),
    "by hand over all": (BY_HAND.format(axes=[1, 2, 3]), "feeds ReduceMean 'm'"),
    "LpNormalization": ("b = LpNormalization<axis=1>(a)", "which divides by a norm"),
    "LRN": ("b = LRN<size=3>(a)", "which divides each channel by its neighbours"),
    "L2 norm by hand": ("n = ReduceL2<axes=[1]>(a) b = Div(a, n)", "feeds ReduceL2 'n'"),
    "LayerNormalization": (
        "t = Transpose<perm=[0,2,3,1]>(a) l = LayerNormalization(t, k1, o1) "
        "b = Transpose<perm=[0,3,1,2]>(l)",
        "feeds LayerNormalization 'l', whose statistics span these channels",
    ),
}


@pytest.mark.parametrize(("body", "why"), HELD.values(), ids=list(HELD))
def test_statistics_over_channels_hold_them(body: str, why: str) -> None:
    check(AROUND.format(body=body), a="ABCD", why=why)


def test_group_normalisation_by_hand_lets_whole_groups_go() -> None:
    """As torch exports it: each group is one channel of an InstanceNormalization."""
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y)
        <float[6,3,1,1] w, float[3] one, float[3] zero, float[6,1,1] k, float[6,1,1] o,
         float[2,6,1,1] v> {
          a = Conv(x, w)
          s = Constant<value_ints=[0,3,-1]>()
          r = Reshape(a, s)
          n = InstanceNormalization(r, one, zero)
          z = Shape(a)
          u = Reshape(n, z)
          m = Mul(u, k)
          b = Add(m, o)
          y = Conv(b, v)
        }
        """,
        a="aabbcc",
    )


MEANS = """
g (float[N,3,8,8] x) => (float[N,5] y) <float[4,3,1,1] w, float[4,5] v> {{
  a = Conv(x, w)
  {body}
  y = Gemm(f, v)
}}
"""
POOLED = {
    "attribute": (17, "f = ReduceMean<axes=[2,3], keepdims=0>(a)"),
    "attribute, from behind": (13, "f = ReduceMean<axes=[-2,-1], keepdims=0>(a)"),
    "input": (18, "k = Constant<value_ints=[2,3]>() f = ReduceMean<keepdims=0>(a, k)"),
    "input, kept": (18, "k = Constant<value_ints=[-1,-2]>() m = ReduceMean(a, k) f = Flatten(m)"),
    "sum": (13, "k = Constant<value_ints=[2,3]>() f = ReduceSum<keepdims=0>(a, k)"),
    "channels last": (
        17,
        "t = Transpose<perm=[0,2,3,1]>(a) f = ReduceMean<axes=[1,2], keepdims=0>(t)",
    ),
    "one axis after another": (
        17,
        "c = ReduceMax<axes=[3], keepdims=0>(a) f = ReduceMax<axes=[2], keepdims=0>(c)",
    ),
}


@pytest.mark.parametrize(("opset", "body"), POOLED.values(), ids=list(POOLED))
def test_a_mean_over_space(opset: int, body: str) -> None:
    header = f'<ir_version: 8, opset_import: ["": {opset}]>'
    check(MEANS.format(body=body), header=header, a="abcd")


def test_a_mean_over_no_axes_is_left_alone() -> None:
    text = MEANS.replace("<float", "<int64[0] none, float")
    body = "m = ReduceMean<noop_with_empty_axes=1>(a, none) p = GlobalAveragePool(m) f = Flatten(p)"
    check(text.format(body=body), header='<ir_version: 8, opset_import: ["": 18]>', a="abcd")


def test_a_mean_over_everything_holds_the_channels() -> None:
    check(
        """
        g (float[N,3,8,8] x) => (float[1,1,1,1] y) <float[4,3,1,1] w> {
          a = Conv(x, w)
          y = ReduceMean(a)
        }
        """,
        a="ABCD",
        why="feeds ReduceMean 'y', which reduces over these channels",
    )
