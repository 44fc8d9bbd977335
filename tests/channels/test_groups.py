"""What must go together, and what must stay and why, read off small graphs."""

import numpy as np
import pytest

from onnxprune.channels.groups import ChannelGroups, find_groups
from onnxprune.channels.labels import Reason
from onnxprune.errors import InvalidModel
from onnxprune.graph.graph import Graph
from onnxprune.surgery.removal import remove_channels
from tests.support.assertions import check_pruned
from tests.support.models import RESIDUAL, model


def groups_of(text: str, **options: str) -> ChannelGroups:
    return find_groups(Graph(model(text, **options)))


def reason(groups: ChannelGroups, node: str) -> str | None:
    channels = next(f.channels for f in groups.filters if f.node == node)
    found = groups.reasons.get(int(channels[0]))
    return None if found is None else found.text


def test_a_residual_sum_ties_its_branches() -> None:
    groups = groups_of(RESIDUAL)
    of = {f.node: f.channels for f in groups.filters}
    assert (of["a"] == of["d"]).all()
    assert not np.intersect1d(of["a"], of["b"]).size
    assert groups.names == ("a", "b")
    assert groups.removable_filters == 18


def test_the_order_of_channels_follows_the_filters() -> None:
    groups = groups_of(RESIDUAL)
    assert groups.filters[0].channels.tolist() == list(range(6))
    assert groups.filters[1].channels.tolist() == list(range(6, 12))


def test_an_axis_on_which_something_stays_is_not_emptied() -> None:
    """Padding puts two channels in front of the first four, and takes the last four away."""
    graph = Graph(
        model("""
        g (float[N,3,4,4] x) => (float[N,2,4,4] y, float[N,2,4,4] z)
        <float[8,3,1,1] w, float[2,6,1,1] v, float[2,8,1,1] u, int64[8] p = {0,2,0,0,0,-4,0,0}> {
          a = Conv(x, w)
          b = Pad(a, p)
          y = Conv(b, v)
          z = Conv(a, u)
        }
        """)
    )
    groups = find_groups(graph)
    first = np.arange(len(groups)) < 4
    assert groups.emptied(first) is None
    check_pruned(graph, groups, first, sizes=(4,))
    assert groups.emptied(np.arange(len(groups)) < 8) is not None


def test_channels_that_padding_takes_the_place_of_stay() -> None:
    """One column is padded in front and cut behind: nothing is left of what was there."""
    graph = Graph(
        model("""
        g (float[1,3,4,1] x) => (float[1,4,4,1] y, float[1,6,4,1] z)
        <float[4,3,1,1] w, int64[8] p = {0,1,0,1,0,1,0,-1}> {
          y = Conv(x, w)
          z = Pad(y, p)
        }
        """)
    )
    groups = find_groups(graph)
    assert "which leaves nothing but padding" in groups.reasons[0].text


def test_a_weight_that_another_is_computed_from_stays() -> None:
    """The filters of one convolution are the images of another, whose result is a weight."""
    graph = Graph(
        model("""
        g (float[1,4,8,8] x, float[1,4,8,8] z) => (float[1,2,8,8] y, float[1,6,8,8] u)
        <float[6,4,1,1] w, float[4,4,1,1] k, float[2,6,1,1] v> {
          c = Conv(k, w)
          made = Softmax<axis=0>(c)
          t = Transpose<perm=[1, 0, 2, 3]>(made)
          a = Conv(x, w)
          y = Conv(a, v)
          u = Conv(z, t)
        }
        """)
    )
    groups = find_groups(graph)
    for channel in np.flatnonzero(groups.removable):
        remove_channels(graph, groups, np.arange(len(groups)) == channel)


BESIDE_AN_IMAGE = """
g (float[N,3,8,8] x) => (float[N,2,8,8] y, float[N,2] z)
<float[4,3,1,1] w, float[2,4,1,1] o, float[4,7,3,3] u, float[5,4,1,1] t, float[5,2] v> {
  a = Conv(x, w)
  y = Conv(a, o)
  c = Concat<axis=1>(x, a)
  b = Conv(c, u)
  d = Conv(b, t)
  p = GlobalAveragePool(d)
  f = Flatten(p)
  z = Gemm(f, v)
}
"""
"""A layer reads three channels that stay and four that may go. The last channels may go, and those
of an output stand before them."""


@pytest.mark.parametrize("text", [RESIDUAL, BESIDE_AN_IMAGE], ids=["residual", "beside an image"])
@pytest.mark.parametrize("gone", [[1, 2, 8], [0, 11, 14]], ids=str)
def test_channels_left_after_a_removal_are_those_of_the_pruned_graph(
    text: str, gone: list[int]
) -> None:
    graph = Graph(model(text))
    groups = find_groups(graph)
    dead = np.isin(np.arange(len(groups)), gone)
    again = find_groups(Graph(remove_channels(graph, groups, dead)))
    expected = groups.without(dead)
    assert again.names == expected.names
    assert again.reasons == expected.reasons
    assert (again.group == expected.group).all()
    for tensor, axes in expected.cuts.items():
        for axis, channels in axes.items():
            assert again.cuts[tensor][axis].tolist() == channels.tolist()


def test_what_nobody_owns_stays_whatever_goes() -> None:
    groups = groups_of(BESIDE_AN_IMAGE)
    for channel in range(len(groups)):
        kept = groups.kept("u", np.arange(len(groups)) == channel)
        assert kept.get(1, np.ones(7, np.bool_))[:3].all()


def test_a_group_is_pinned_where_nothing_of_it_may_go() -> None:
    """The first filter of `a` is returned, beside all that `y` is made of."""
    groups = groups_of(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y, float[N,1,8,8] z)
        <float[4,3,1,1] w, float[2,4,1,1] v> {
          a = Conv(x, w)
          zero = Constant<value_ints=[0]>()
          one = Constant<value_ints=[1]>()
          z = Slice(a, zero, one, one)
          y = Conv(a, v)
        }
        """
    )
    assert groups.removable.tolist() == [False, True, True, True, False, False]
    assert groups.pinned == {1: Reason("is the graph output 'y'")}


def test_a_number_of_channels_that_is_returned_stays() -> None:
    groups = groups_of(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y, int64[4] s)
        <float[4,3,1,1] w, float[2,4,1,1] v> {
          a = Conv(x, w)
          s = Shape(a)
          y = Conv(a, v)
        }
        """
    )
    assert reason(groups, "a") == "their number goes into the graph output 's'"


@pytest.mark.parametrize("seed", range(3))
def test_what_survives_of_a_tensor_is_what_is_left_of_its_cuts(seed: int) -> None:
    groups = groups_of(RESIDUAL)
    dead = groups.removable & (np.random.default_rng(seed).random(len(groups)) < 0.4)
    left = groups.without(dead).cuts
    for tensor, axes in groups.cuts.items():
        kept, sizes = groups.kept(tensor, dead), groups.sizes(tensor, dead)
        assert kept.keys() == sizes.keys() == {k for k, c in axes.items() if dead[c[c >= 0]].any()}
        for axis, channels in axes.items():
            alive = kept.get(axis, np.ones(channels.size, np.bool_))
            assert alive.sum() == sizes.get(axis, channels.size) == left[tensor][axis].size
            assert not dead[channels[alive & (channels >= 0)]].any()


def test_a_graph_output_keeps_its_channels() -> None:
    groups = groups_of(
        "g (float[N,3,8,8] x) => (float[N,4,8,8] y) <float[4,3,1,1] w> { y = Conv(x, w) }"
    )
    assert reason(groups, "y") == "is the graph output 'y'"
    assert groups.pinned == {0: Reason("is the graph output 'y'")}


def test_an_unknown_operator_keeps_what_it_reads_and_is_named() -> None:
    groups = groups_of(
        """
        g (float[N,3,8,8] x) => (float[N,4,8,8] y) <float[4,3,1,1] w, float[4,4,1,1] v> {
          a = Conv(x, w)
          b = my.Mystery(a)
          y = Conv(b, v)
        }
        """,
        header='<ir_version: 8, opset_import: ["": 17, "my": 1]>',
    )
    assert reason(groups, "a") == "feeds Mystery 'b', an operator that onnxprune does not know"


def test_softmax_over_channels_pins_them_and_over_space_does_not() -> None:
    text = """
    g (float[N,3,8,8] x) => (float[N,2,8,8] y) <float[4,3,1,1] w, float[2,4,1,1] v> {{
      a = Conv(x, w)
      b = Softmax<axis={axis}>(a)
      y = Conv(b, v)
    }}
    """
    assert "feeds Softmax 'b'" in str(reason(groups_of(text.format(axis=1)), "a"))
    assert reason(groups_of(text.format(axis=3)), "a") is None


def test_a_channel_count_used_as_a_value_pins_the_channels() -> None:
    groups = groups_of(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y) <float[4,3,1,1] w, float[2,4,1,1] v> {
          a = Conv(x, w)
          n = Shape(a)
          i = Constant<value_int=1>()
          c = Gather(n, i)
          f = Cast<to=1>(c)
          b = Div(a, f)
          y = Conv(b, v)
        }
        """
    )
    assert "their number is a value that Div 'b' computes with" in str(reason(groups, "a"))


def test_what_a_subgraph_reads_is_pinned() -> None:
    groups = groups_of(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y)
        <float[4,3,1,1] w, float[2,4,1,1] v, float[N,4,8,8] b> {
          a = Conv(x, w)
          s = SplitToSequence(x)
          t = SequenceMap(s) <body = each (float[M,3,8,8] r) => (float[M,4,8,8] o) {
            m = ReduceMax<axes=[1]>(r) o = Add(a, m)
          }>
          b = ConcatFromSequence<axis=0>(t)
          y = Conv(b, v)
        }
        """
    )
    assert reason(groups, "a") == "is read inside the subgraph of SequenceMap 't'"


def test_one_weight_applied_twice_ties_both_applications() -> None:
    groups = groups_of(
        """
        g (float[N,4,8,8] x) => (float[N,2,8,8] y) <float[4,4,1,1] w, float[2,4,1,1] v> {
          a = Conv(x, w)
          b = Conv(a, w)
          y = Conv(b, v)
        }
        """
    )
    assert "meets fixed channels of 'x'" in str(reason(groups, "a"))


def test_the_only_filter_of_a_layer_stays() -> None:
    groups = groups_of(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y) <float[1,3,1,1] w, float[2,1,1,1] v> {
          a = Conv(x, w)
          y = Conv(a, v)
        }
        """
    )
    assert groups.removable_filters == 0


def test_a_flatten_after_a_transpose_interleaves() -> None:
    groups = groups_of(
        """
        g (float[N,3,2,2] x) => (float[N,5] y) <float[4,3,1,1] w, float[16,5] v> {
          a = Conv(x, w)
          t = Transpose<perm=[0,2,3,1]>(a)
          f = Flatten(t)
          y = Gemm(f, v)
        }
        """
    )
    assert groups.cuts["v"][0].tolist() == [0, 1, 2, 3] * 4


def test_a_model_without_convolutions_is_refused() -> None:
    with pytest.raises(InvalidModel, match="has no convolutions"):
        groups_of("g (float[N,3] x) => (float[N,5] y) <float[3,5] w> { y = MatMul(x, w) }")


def test_an_image_is_never_materialised() -> None:
    text = """
    g (float[N,3,4096,4096] x) => (float[N,2,4096,4096] y)
    <float[4,3,1,1] w, float[4,3,1,1] u, float[2,8,1,1] v> {
      a = Conv(x, w)
      b = Conv(x, u)
      c = Concat<axis=1>(a, b)
      y = Conv(c, v)
    }
    """
    import tracemalloc

    graph = Graph(model(text))
    tracemalloc.start()
    groups = find_groups(graph)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert groups.removable_filters == 8
    assert peak < 4096 * 4096
