"""Weights applied more than once, and tensors read by many."""

from tests.support.assertions import check


def test_a_residual_sum_ties_its_branches() -> None:
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y)
        <float[4,3,1,1] w, float[4,4,3,3] u, float[4,4,1,1] t, float[2,4,1,1] v> {
          a = Conv(x, w)
          b = Conv<pads=[1,1,1,1]>(a, u)
          r = Relu(b)
          c = Conv(r, t)
          s = Add(a, c)
          y = Conv(s, v)
        }
        """,
        a="abcd",
        b="efgh",
        c="abcd",
    )


def test_a_convolution_applied_twice_in_a_row() -> None:
    """The second reads what the first makes, with one weight: its inputs and outputs are tied."""
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y)
        <float[4,3,1,1] w, float[4,4,3,3] u, float[2,4,1,1] v> {
          a = Conv(x, w)
          b = Conv<pads=[1,1,1,1]>(a, u)
          c = Conv<pads=[1,1,1,1]>(b, u)
          y = Conv(c, v)
        }
        """,
        a="abcd",
        b="abcd",
        c="abcd",
    )


def test_a_head_shared_by_two_levels_ties_both() -> None:
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y, float[N,2,4,4] z)
        <float[4,3,1,1] w, float[4,4,3,3] d, float[5,4,1,1] h, float[5] b, float[2,5,1,1] v> {
          one = Conv(x, w)
          two = Conv<pads=[1,1,1,1], strides=[2,2]>(one, d)
          h1 = Conv(one, h, b)
          h2 = Conv(two, h, b)
          r1 = Relu(h1)
          r2 = Relu(h2)
          y = Conv(r1, v)
          z = Conv(r2, v)
        }
        """,
        one="abcd",
        two="abcd",
        h1="efghi",
        h2="efghi",
    )


def test_a_shared_bias_and_normalisation_tie_nothing() -> None:
    """Exporters merge equal vectors of layers that have nothing to do with each other."""
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y)
        <float[4,3,1,1] w, float[4,3,1,1] u, float[4] b,
         float[4] s, float[4] o, float[4] m, float[4] var, float[2,8,1,1] v> {
          a = Conv(x, w, b)
          c = Conv(x, u, b)
          n = BatchNormalization(a, s, o, m, var)
          k = BatchNormalization(c, s, o, m, var)
          d = Concat<axis=1>(n, k)
          y = Conv(d, v)
        }
        """,
        a="abcd",
        c="efgh",
    )


def test_the_same_tensor_twice_in_a_concat() -> None:
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y) <float[4,3,1,1] w, float[2,8,1,1] v> {
          a = Conv(x, w)
          c = Concat<axis=1>(a, a)
          y = Conv(c, v)
        }
        """,
        a="abcd",
    )


def test_nested_dense_concats() -> None:
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y)
        <float[4,3,1,1] w, float[8,4,1,1] b1, float[2,8,3,3] g1, float[8,6,1,1] b2,
         float[2,8,3,3] g2, float[8] s, float[8] o, float[8] m, float[8] var, float[2,8,1,1] v> {
          stem = Conv(x, w)
          k1 = Conv(stem, b1)
          d1 = Conv<pads=[1,1,1,1]>(k1, g1)
          c1 = Concat<axis=1>(stem, d1)
          k2 = Conv(c1, b2)
          d2 = Conv<pads=[1,1,1,1]>(k2, g2)
          c2 = Concat<axis=1>(stem, d1, d2)
          n = BatchNormalization(c2, s, o, m, var)
          y = Conv(n, v)
        }
        """,
        stem="abcd",
        k1="efghijkl",
        d1="mn",
        k2="opqrstuv",
        d2="wx",
    )


def test_a_concat_with_several_readers() -> None:
    """A depthwise convolution, a residual with a part of its own, and a dense layer."""
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y, float[N,2] z)
        <float[3,3,1,1] w, float[2,3,1,1] u, float[5,1,3,3] d, float[5,3,1,1] r,
         float[2,5,1,1] v, float[5,2] f> {
          a = Conv(x, w)
          b = Conv(x, u)
          c = Concat<axis=1>(a, b)
          e = Conv<group=5, pads=[1,1,1,1]>(c, d)
          h = Conv(x, r)
          s = Add(c, h)
          m = Mul(e, s)
          y = Conv(m, v)
          p = GlobalAveragePool(c)
          q = Flatten(p)
          z = Gemm(q, f)
        }
        """,
        a="abc",
        b="de",
        e="abcde",
        h="abcde",
    )


def test_a_concat_along_space_ties_its_parts() -> None:
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,16,8] y)
        <float[4,3,1,1] w, float[4,3,1,1] u, float[2,4,1,1] v> {
          a = Conv(x, w)
          b = Conv(x, u)
          c = Concat<axis=2>(a, b)
          y = Conv(c, v)
        }
        """,
        a="abcd",
        b="abcd",
    )


def test_an_image_joined_to_channels_stays() -> None:
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y)
        <float[4,3,1,1] w, float[7,1,3,3] d, float[2,7,1,1] v> {
          a = Conv(x, w)
          c = Concat<axis=1>(x, a)
          b = Conv<group=7, pads=[1,1,1,1]>(c, d)
          y = Conv(b, v)
        }
        """,
        a="abcd",
        b="XYZabcd",
        why="meets fixed channels of 'c' in Conv 'b'",
    )


def test_a_residual_with_the_image_stays() -> None:
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y) <float[3,3,1,1] w, float[2,3,1,1] v> {
          a = Conv(x, w)
          s = Add(a, x)
          y = Conv(s, v)
        }
        """,
        a="ABC",
        why="meets fixed channels in Add 's'",
    )


def test_channels_padded_onto_a_residual_go_with_what_they_meet() -> None:
    """A parameterless shortcut of a ResNet on CIFAR-10: subsampled, padded with zero channels."""
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,4,4] y)
        <float[2,3,1,1] w, float[6,2,3,3] u, float[2,6,1,1] v> {
          a = Conv(x, w)
          p = AveragePool<kernel_shape=[1,1], strides=[2,2]>(a)
          n = Constant<value_ints=[0,2,0,0,0,2,0,0]>()
          q = Pad(p, n)
          b = Conv<pads=[1,1,1,1], strides=[2,2]>(a, u)
          s = Add(q, b)
          y = Conv(s, v)
        }
        """,
        a="ab",
        b="cdabef",
    )
