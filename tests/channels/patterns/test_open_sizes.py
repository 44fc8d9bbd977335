"""Parameters that name channels beside sizes known only at run time: restated, or held and named.

A restated parameter is a constant, so what follows an open axis may not be restated with it.
"""

import pytest

from tests.support.assertions import check

OPEN = """
g (float[N,3,H,W] x) => (float[N,2,I,J] y)
<float[4,3,3,3] w, float[4,3,3,3] u, float[2,{wide},1,1] v> {{
  a = Conv<pads=[1,1,1,1]>(x, w)
  n = Shape(a)
  zero = Constant<value_ints=[0]>() one = Constant<value_ints=[1]>()
  two = Constant<value_ints=[2]>() three = Constant<value_ints=[3]>()
  four = Constant<value_ints=[4]>() ends = Constant<value_ints=[0,0]>()
  by4 = Constant<value_ints=[4,4]>()
  nc = Slice(n, zero, two) batch = Slice(n, zero, one) hw = Slice(n, two, four)
  channels = Slice(n, one, two)
  {body}
  y = Conv(b, v)
}}
"""
RUNTIME = "which states a number of channels beside sizes known only at run time"

HELD = {
    "Expand of a pixel": (
        4,
        "s = Concat<axis=0>(batch, four, hw) p = GlobalMaxPool(a) b = Expand(p, s)",
    ),
    "Resize to sizes": (
        4,
        "k = Constant<value_ints=[1,4]>() s = Concat<axis=0>(batch, four, hw) "
        "p = MaxPool<kernel_shape=[2,2]>(a) b = Resize(p, , , s)",
    ),
    "Pad of channels and space": (
        6,
        "k = Mod(hw, by4) e = Concat<axis=0>(zero, two, ends, zero, zero, k) b = Pad(a, e)",
    ),
    "Slice of channels and space": (
        2,
        "s = Constant<value_ints=[0,1,0,0]>() e = Concat<axis=0>(batch, three, hw) "
        "b = Slice(a, s, e)",
    ),
    "Reshape": (4, "s = Concat<axis=0>(batch, four, hw) f = Flatten(a) b = Reshape(f, s)"),
}


@pytest.mark.parametrize(("wide", "body"), HELD.values(), ids=list(HELD))
def test_a_count_written_beside_open_sizes_holds_the_channels(wide: int, body: str) -> None:
    text = OPEN.format(wide=wide, body=body)
    check(text, sizes=(8, 11), why=RUNTIME, a="ABCD")


MAP = "h = ReduceMax<axes=[1]>(x) "
FREE = {
    "Expand of a pixel, channels left": (
        4,
        "s = Concat<axis=0>(one, one, hw) p = GlobalMaxPool(a) b = Expand(p, s)",
    ),
    "Expand of a pixel, channels read": (
        4,
        "s = Concat<axis=0>(batch, channels, hw) p = GlobalMaxPool(a) b = Expand(p, s)",
    ),
    "Resize, channels read": (
        4,
        "s = Concat<axis=0>(nc, hw) p = MaxPool<kernel_shape=[2,2]>(a) b = Resize(p, , , s)",
    ),
    "Expand of a map, channels read": (
        4,
        MAP + "e = Expand(h, n) b = Mul(a, e)",
    ),
    "Expand of a map, channels written": (
        4,
        MAP + "s = Concat<axis=0>(one, four, one, one) e = Expand(h, s) b = Mul(a, e)",
    ),
    "Tile of a map, channels written": (
        4,
        MAP + "s = Concat<axis=0>(one, four, one, one) e = Tile(h, s) b = Mul(a, e)",
    ),
    "Tile of a map, channels read": (
        4,
        MAP + "s = Concat<axis=0>(one, channels, one, one) e = Tile(h, s) b = Mul(a, e)",
    ),
    "Pad of space": (4, "k = Sub(hw, hw) e = Concat<axis=0>(ends, k, ends, k) b = Pad(a, e)"),
    "Slice of space": (
        4,
        "s = Constant<value_ints=[1,1]>() e = Constant<value_ints=[2,3]>() b = Slice(a, s, hw, e)",
    ),
    "Slice of channels": (2, "b = Slice(a, one, three, one)"),
    "Pad of channels": (
        7,
        "p = Constant<value_ints=[0,2,0,0,0,1,0,0]>() b = Pad(a, p)",
    ),
    "crop of channels": (
        3,
        "p = Constant<value_ints=[0,-1,0,0,0,0,0,0]>() b = Pad(a, p)",
    ),
    "Reshape, channels read": (
        4,
        "s = Concat<axis=0>(batch, channels, hw) f = Flatten(a) b = Reshape(f, s)",
    ),
    "Reshape, channels written, one open axis worked out": (
        4,
        "m = Constant<value_ints=[-1]>() s = Concat<axis=0>(batch, four, m) r = Reshape(a, s) "
        "p = Softmax<axis=2>(r) b = Reshape(p, n)",
    ),
}


@pytest.mark.parametrize(("wide", "body"), FREE.values(), ids=list(FREE))
def test_a_count_that_stands_alone_or_is_worked_out_is_restated(wide: int, body: str) -> None:
    check(OPEN.format(wide=wide, body=body), sizes=(8, 11), a="abcd")


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_channels_repeated_at_the_border_stay(mode: str) -> None:
    body = f'p = Constant<value_ints=[0,1,0,0,0,1,0,0]>() b = Pad<mode="{mode}">(a, p)'
    check(
        OPEN.format(wide=6, body=body),
        header='<ir_version: 9, opset_import: ["": 19]>',
        why="which repeats channels at the border",
        a="ABCD",
    )


NUMBERS = {
    "a value": (
        "f = Cast<to=1>(k) g = Mul(a, f) b = Add(g, a)",
        "their number is a value that Mul 'g' computes with",
    ),
    "the number of indices": (
        "z = Constant<value_int=0>() i = Constant<value_int=1>() q = Squeeze(k) r = Range(z, q, i) "
        "b = Gather<axis=1>(a, r)",
        "their number is the size of what Gather 'b' is told",
    ),
    "a condition": (
        "q = Squeeze(k) p = Greater(q, q3) b = If(p) <"
        "then_branch = g1 () => (float[N,4,H,W] o) { o = Relu(a) },"
        "else_branch = g2 () => (float[N,4,H,W] o) { o = Identity(a) }>",
        "their number is a value that If 'b' computes with",
    ),
}


@pytest.mark.parametrize(("body", "why"), NUMBERS.values(), ids=list(NUMBERS))
def test_a_number_of_channels_that_is_used_as_a_number_holds_them(body: str, why: str) -> None:
    """Those of another layer, of which there happen to be equally many."""
    body = f"""
      c = Conv<pads=[1,1,1,1]>(x, u) m = Shape(c) k = Slice(m, one, two)
      q3 = Constant<value_int=3>() {body}
    """
    check(OPEN.format(wide=4, body=body), sizes=(8,), why=why, a="abcd", c="EFGH")


def test_a_number_of_channels_in_an_output_holds_them() -> None:
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y, int64[1] n)
        <float[4,3,1,1] w, float[2,4,1,1] v> {
          a = Conv(x, w)
          n = Shape<start=1, end=2>(a)
          y = Conv(a, v)
        }
        """,
        why="their number goes into the graph output 'n'",
        a="ABCD",
    )
