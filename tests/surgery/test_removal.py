"""Pruned equals masked, and nothing else changes."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from onnxprune.channels.groups import find_groups
from onnxprune.errors import InvalidPlan, SurgeryError
from onnxprune.graph.graph import Graph
from onnxprune.ops import OPS
from onnxprune.surgery.masking import mask
from onnxprune.surgery.removal import remove_channels
from tests.support.halves import half
from tests.support.models import RESIDUAL, images, model, relative_error, run

EXACT = 1e-5
"""Relative; sums over fewer channels are ordered differently."""


def assert_pruned_equals_masked(proto: ModelProto, batches: tuple[int, ...] = (1, 3)) -> None:
    graph = Graph(proto)
    groups = find_groups(graph)
    dead = half(groups)
    assert dead.any()
    small, zeroed = remove_channels(graph, groups, dead), mask(graph, groups, dead)
    onnx.checker.check_model(small, full_check=True)
    for batch in batches:
        x = images(proto, batch)
        for found, expected in zip(run(small, x), run(zeroed, x), strict=True):
            assert found.shape == expected.shape
            assert relative_error(found, expected) < EXACT


SHUFFLE = """
g (float[N,3,6,6] x) => (float[N,2,6,6] y)
<float[8,3,1,1] w, float[8,1,3,3] d, float[2,8,1,1] v> {
  a = Conv(x, w)
  s = Constant<value_ints=[-1,2,4,6,6]>()
  r = Reshape(a, s)
  t = Transpose<perm=[0,2,1,3,4]>(r)
  q = Constant<value_ints=[-1,8,6,6]>()
  u = Reshape(t, q)
  e = Conv<group=8, pads=[1,1,1,1]>(u, d)
  y = Conv(e, v)
}
"""
COMPUTED = """
g (float[N,3,6,6] x) => (float[N,5] y) <float[4,3,3,3] w, float[64,5] v> {
  a = Conv(x, w)
  r = Relu(a)
  n = Shape(r)
  zero = Constant<value_int=0>()
  b = Gather(n, zero)
  ax = Constant<value_ints=[0]>()
  c = Unsqueeze(b, ax)
  k = Constant<value_ints=[64]>()
  s = Concat<axis=0>(c, k)
  f = Reshape(r, s)
  y = Gemm(f, v)
}
"""
FLATTENED = """
g (float[N,3,6,6] x) => (float[N,5] y) <float[4,3,3,3] w, float[64,5] v> {
  a = Conv(x, w)
  s = Constant<value_ints=[-1,64]>()
  f = Reshape(a, s)
  y = Gemm(f, v)
}
"""
SPLIT = """
g (float[N,3,6,6] x) => (float[N,2,6,6] y)
<float[8,3,1,1] w, float[4,4,3,3] u, float[2,8,1,1] v> {
  a = Conv(x, w)
  b, c = Split<axis=1>(a)
  d = Conv<pads=[1,1,1,1]>(c, u)
  e = Concat<axis=1>(d, b)
  y = Conv(e, v)
}
"""


SECOND_HALF = """
g (float[N,3,4,4] x) => (float[N,2,4,4] y) <float[8,3,1,1] w, float[2,4,1,1] v> {
  a = Conv(x, w)
  s = Constant<value_ints=[4]>()
  e = Constant<value_ints=[8]>()
  k = Constant<value_ints=[1]>()
  b = Slice(a, s, e, k)
  y = Conv(b, v)
}
"""


EXPANDED = """
g (float[N,3,4,4] x) => (float[N,2,4,4] y)
<float[6,3,1,1] w, float[1,1,1] k, int64[3] s = {6,4,4}, float[2,6,1,1] v> {
  a = Conv(x, w)
  e = Expand(k, s)
  b = Add(a, e)
  y = Conv(b, v)
}
"""
"""The second branch reads no channel, and has as many as it is told."""


@pytest.mark.parametrize("text", [RESIDUAL, SHUFFLE, COMPUTED, SPLIT, EXPANDED])
def test_pruned_equals_masked(text: str) -> None:
    assert_pruned_equals_masked(model(text))


def test_nothing_removed_returns_an_equal_model() -> None:
    proto = model(RESIDUAL)
    graph = Graph(proto)
    groups = find_groups(graph)
    nothing = np.zeros(len(groups), np.bool_)
    assert remove_channels(graph, groups, nothing) == proto
    assert mask(graph, groups, nothing) == proto


def test_the_users_model_is_not_touched_and_keeps_what_is_not_pruned() -> None:
    proto = model(RESIDUAL)
    proto.metadata_props.add(key="owner", value="me")
    before = proto.SerializeToString(deterministic=True)
    graph = Graph(proto)
    groups = find_groups(graph)
    small = remove_channels(graph, groups, half(groups))
    assert proto.SerializeToString(deterministic=True) == before
    assert (small.ir_version, small.opset_import) == (proto.ir_version, proto.opset_import)
    assert small.metadata_props == proto.metadata_props
    assert [n.name for n in small.graph.node] == [n.name for n in proto.graph.node]
    assert small.graph.input == proto.graph.input
    assert small.graph.output == proto.graph.output


def test_declared_shapes_follow_the_cuts() -> None:
    proto = onnx.shape_inference.infer_shapes(model(RESIDUAL))
    graph = Graph(proto)
    groups = find_groups(graph)
    dead = np.zeros(len(groups), np.bool_)
    dead[:2] = True
    small = remove_channels(graph, groups, dead)
    declared = {v.name: v.type.tensor_type.shape.dim[1].dim_value for v in small.graph.value_info}
    assert (declared["a"], declared["s"], declared["b"]) == (4, 4, 6)


def test_a_dynamic_batch_stays_dynamic_through_a_computed_target() -> None:
    proto = model(COMPUTED)
    graph = Graph(proto)
    groups = find_groups(graph)
    small = remove_channels(graph, groups, half(groups))
    assert run(small, images(proto, 7))[0].shape == (7, 5)


def test_a_shared_target_shape_is_not_changed_for_others() -> None:
    text = """
    g (float[N,3,2,2] x) => (float[N,12] y, float[N,12] z) <float[3,3,1,1] w, float[12,12] v> {
      s = Constant<value_ints=[-1,12]>()
      a = Conv(x, w)
      f = Reshape(a, s)
      y = Gemm(f, v)
      z = Reshape(x, s)
    }
    """
    assert_pruned_equals_masked(model(text))


def test_a_target_shape_that_the_model_returns_is_returned_as_it_was() -> None:
    text = FLATTENED.replace("(float[N,5] y)", "(float[N,5] y, int64[2] s)")
    text = text.replace("float[64,5] v>", "float[64,5] v, int64[2] s = {-1,64}>")
    proto = model(text.replace("s = Constant<value_ints=[-1,64]>()", ""))
    graph = Graph(proto)
    small = remove_channels(graph, find_groups(graph), np.arange(4) < 2)
    y, s = run(small, images(proto, 2))
    assert (y.shape, s.tolist()) == ((2, 5), [-1, 64])


def test_a_constant_that_nothing_reads_any_more_goes() -> None:
    """The target is stated anew in its place; what was never read stays as the user left it."""
    idle = "idle = Constant<value_ints=[7]>()\n  r = Reshape(a, s)"
    graph = Graph(model(SHUFFLE.replace("r = Reshape(a, s)", idle)))
    groups = find_groups(graph)
    small = remove_channels(graph, groups, half(groups))
    read = {name for node in small.graph.node for name in node.input}
    made = {name for node in small.graph.node for name in node.output}
    assert made - read == {"idle", "y"}


def test_a_divisor_is_not_zeroed() -> None:
    text = """
    g (float[N,3,2,2] x) => (float[N,2,2,2] y)
    <float[4,3,1,1] w, float[4,1,1] k, float[2,4,1,1] v> {
      a = Conv(x, w)
      b = Div(a, k)
      y = Conv(b, v)
    }
    """
    assert_pruned_equals_masked(model(text))


def test_a_pinned_channel_is_refused() -> None:
    graph = Graph(model(RESIDUAL.replace("float[N,2] y", "float[N,2] y, float[N,6,8,8] s")))
    groups = find_groups(graph)
    dead = np.zeros(len(groups), np.bool_)
    dead[0] = True
    with pytest.raises(InvalidPlan, match=r"group 'a'.*must stay: it is the graph output 's'"):
        remove_channels(graph, groups, dead)


def test_an_emptied_axis_is_refused() -> None:
    graph = Graph(model(RESIDUAL))
    groups = find_groups(graph)
    with pytest.raises(InvalidPlan, match="removes all 6 positions"):
        mask(graph, groups, groups.group == 1)


def test_a_forgotten_restatement_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    for op in OPS["", "Reshape"]:
        monkeypatch.setitem(op.__dict__, "restate", None)
    graph = Graph(model(FLATTENED))
    groups = find_groups(graph)
    with pytest.raises(SurgeryError, match="Reshape 'f': output 'f' should have shape"):
        remove_channels(graph, groups, half(groups))


def test_an_inferred_shape_that_is_not_the_predicted_one_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bounds that are left as they were cut out something else."""
    for op in OPS["", "Slice"]:
        monkeypatch.setitem(op.__dict__, "restate", None)
    graph = Graph(model(SECOND_HALF))
    dead = np.isin(np.arange(10), [0, 5])
    message = r"output 'b' should have shape \[1, 3, 4, 4\], ONNX infers \[1, 2, 4, 4\]"
    with pytest.raises(SurgeryError, match=message):
        remove_channels(graph, find_groups(graph), dead)


def test_an_attribute_that_would_contradict_what_is_restated_goes() -> None:
    """Halves are of other sizes now: a Split says either how many parts or how large they are."""
    text = SPLIT.replace("<axis=1>(a)", "<axis=1, num_outputs=2>(a)")
    proto = model(text, header='<ir_version: 8, opset_import: ["": 18]>')
    graph = Graph(proto)
    groups = find_groups(graph)
    dead = np.isin(np.arange(len(groups)), [0, 1, 5])
    x = images(proto, 2)
    found = run(remove_channels(graph, groups, dead), x)[0]
    assert relative_error(found, run(mask(graph, groups, dead), x)[0]) < EXACT


@pytest.mark.parametrize("step", [2, -1])
def test_a_slice_with_a_step_becomes_a_gather(step: int) -> None:
    start, end = (0, 8) if step > 0 else (7, -9)
    text = f"""
    g (float[N,3,4,4] x) => (float[N,2,4,4] y)
    <float[8,3,1,1] w, float[2,{8 // abs(step)},1,1] v> {{
      a = Conv(x, w)
      s = Constant<value_ints=[{start}]>()
      e = Constant<value_ints=[{end}]>()
      k = Constant<value_ints=[1]>()
      t = Constant<value_ints=[{step}]>()
      b = Slice(a, s, e, k, t)
      y = Conv(b, v)
    }}
    """
    assert_pruned_equals_masked(model(text))


def test_a_node_is_restated_when_a_count_that_it_is_told_has_changed() -> None:
    """Its own tensors keep their channels; the target is the shape of one that does not."""
    assert_pruned_equals_masked(
        model("""
        g (float[N,3,4,4] x) => (float[N,2,4,4] y)
        <float[6,3,1,1] w, float[6,6,1,1] u, float[2,6,1,1] v> {
          a = Conv(x, w)
          s = Shape(a)
          b = Conv(a, u)
          l = LpNormalization<axis=1>(b)
          f = Flatten(l)
          r = Reshape(f, s)
          y = Conv(r, v)
        }
        """)
    )


def test_what_a_model_declares_wrongly_of_a_tensor_is_dropped() -> None:
    proto = model("""
    g (float[1,3,8,8] x) => (float[1,2,8,8] y)
    <float[6,3,1,1] w, float[2,6,1,1] v> {
      a = Conv(x, w)  r = Relu(a)  q = Neg(r)  y = Conv(q, v)
    }
    """)
    for name, shape in (("a", [1, 6, 8, 8]), ("r", [1, 8, 8, 6]), ("q", [1, 6, 64])):
        proto.graph.value_info.append(onnx.helper.make_tensor_value_info(name, 1, shape))
    graph = Graph(proto)
    groups = find_groups(graph)
    small = remove_channels(graph, groups, half(groups))
    assert [value.name for value in small.graph.value_info] == ["a"]
    assert run(small, images(proto, 1))[0].shape == (1, 2, 8, 8)
