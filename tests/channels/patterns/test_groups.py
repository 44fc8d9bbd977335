"""Convolutions in groups, one after another: every group loses equally many."""

from tests.support.assertions import check

GROUPED = """
g (float[N,3,8,8] x) => (float[N,2,8,8] y)
<float[8,3,1,1] w, float[{wide},{per},3,3] g1, float[{out},{more},1,1] g2,
 float[2,{out},1,1] v> {{
  a = Conv(x, w)
  b = Conv<group={one}, pads=[1,1,1,1]>(a, g1)
  r = Relu(b)
  c = Conv<group={two}>(r, g2)
  y = Conv(c, v)
}}
"""


def test_grouped_to_grouped() -> None:
    text = GROUPED.format(wide=8, one=2, two=2, per=4, more=4, out=4)
    check(text, a="abcdabcd", b="efghefgh", c="ijij")


def test_two_groups_to_four_groups() -> None:
    text = GROUPED.format(wide=8, one=2, two=4, per=4, more=2, out=8)
    check(text, a="abcdabcd", b="efefefef", c="ijijijij")


def test_groups_of_one_filter_each_stay() -> None:
    """Filters go at the same place of every group, and there is but one place."""
    text = GROUPED.format(wide=8, one=2, two=4, per=4, more=2, out=4)
    check(text, a="abcdabcd", b="efefefef", c="ZZZZ", why="alone fills axis 0 of 'g2'")


def test_four_groups_to_two_groups() -> None:
    text = GROUPED.format(wide=8, one=4, two=2, per=2, more=4, out=4)
    check(text, a="abababab", b="cdcdcdcd", c="ijij")


def test_depthwise_with_a_multiplier() -> None:
    text = GROUPED.format(wide=16, one=8, two=1, per=1, more=16, out=4)
    check(text, a="abcdefgh", b="aabbccddeeffgghh", c="ijkl")


def test_what_is_tied_across_groups_already_is_tied_no_further() -> None:
    """Each filter of the first group meets another one of the second."""
    text = """
    g (float[N,3,8,8] x) => (float[N,2,8,8] y)
    <float[4,3,1,1] w, float[8,2,3,3] g1, int64[8] order = {5,4,7,6,1,0,3,2},
     float[2,8,1,1] v> {
      a = Conv(x, w)
      b = Conv<group=2, pads=[1,1,1,1]>(a, g1)
      c = Gather<axis=1>(b, order)
      s = Add(b, c)
      y = Conv(s, v)
    }
    """
    check(text, a="xyxy", b="abcdbadc")
