"""What onnxruntime stumbles over is not asked for and stays: unread inputs, lone blocks."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.evaluation.runtime import session
from onnxprune.graph.graph import Graph
from onnxprune.graph.inputs import unread_inputs
from onnxprune.graph.runtime_form import runnable
from onnxprune.runtimes.fixed import fix_axes
from tests.support.models import model

# As OpenCV's quantiser leaves them: the weight is another tensor now, and its input is still there.
LEFT = """
net (float[N,3,8,8] image, float[6,3,3,3] old_weight, float[N,2] spare) => (float[N,5] y)
<float[6,3,3,3] w, float[5,6] v> {
  a = Conv(image, w)
  r = Relu(a)
  p = GlobalAveragePool(r)
  f = Flatten(p)
  y = Gemm<transB=1>(f, v)
}
"""
BRANCH = """
net (bool c, float[2] x, float[2] z) => (float[2] y) {
  y = If(c) <
    then_branch = g1 () => (float[2] a) { a = Neg(x) },
    else_branch = g2 () => (float[2] b) { b = Identity(x) }
  >
}
"""


def test_what_nothing_reads_is_found() -> None:
    assert unread_inputs(model(LEFT).graph) == {"old_weight", "spare"}
    assert Graph(model(LEFT)).inputs == ("image",)


def test_what_a_branch_reads_and_what_is_handed_on_is_read() -> None:
    assert unread_inputs(model(BRANCH).graph) == {"z"}
    handed = model("net (float[2] x, float[2] z) => (float[2] y, float[2] z) { y = Neg(x) }")
    assert not unread_inputs(handed.graph)


def test_an_input_that_has_a_value_is_no_matter() -> None:
    given = model(LEFT)
    given.graph.input.append(onnx.helper.make_tensor_value_info("w", 1, (6, 3, 3, 3)))
    assert unread_inputs(given.graph) == {"old_weight", "spare"}


def test_a_model_that_reads_nothing_keeps_its_inputs() -> None:
    held = model("net (float[2] x) => (float[2] y) <float[2] w> { y = Neg(w) }")
    assert not unread_inputs(held.graph)
    assert runnable(held) is held


@pytest.mark.parametrize("as_file", [False, True])
def test_a_session_does_not_ask_for_them(as_file: bool, tmp_path: Path) -> None:
    given = model(LEFT)
    onnx.save(given, tmp_path / "model.onnx")
    net = session(tmp_path / "model.onnx" if as_file else given, device="cpu", threads=1)
    assert [one.name for one in net.get_inputs()] == ["image"]
    assert len(given.graph.input) == 3


def test_files_for_runtimes_do_not_ask_for_them() -> None:
    fixed = fix_axes(Graph(model(LEFT)))
    assert [one.name for one in fixed.model.graph.input] == [*fixed.shapes] == ["image"]


@pytest.mark.parametrize("extra", [False, True])
def test_one_array_or_all_inputs_by_name_are_samples(extra: bool, tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((24, 3, 8, 8), np.float32)
    more = {"spare": np.zeros((24, 2), np.float32)} if extra else {}
    np.savez(tmp_path / "samples.npz", image=images, **more)
    result = onnxprune.prune(
        model(LEFT), tmp_path / "samples.npz", macs=0.6, round_to=1, threads=1, device="cpu"
    )
    assert result.report["after"]["macs"] < result.report["before"]["macs"]
    assert [one.name for one in result.model.graph.input] == ["image", "old_weight", "spare"]


def test_other_names_are_refused_all_the_same(tmp_path: Path) -> None:
    images = np.zeros((4, 3, 8, 8), np.float32)
    np.savez(tmp_path / "samples.npz", image=images, spar=images)
    with pytest.raises(onnxprune.OnnxPruneError, match="holds image, spar, expected image"):
        onnxprune.prune(model(LEFT), tmp_path / "samples.npz", macs=0.6)


BLOCKS = """
net (float[N,4] x) => (float[N,4] y) {
  whole = DequantizeLinear<axis=0, block_size=4>(b, one)
  halves = DequantizeLinear<axis=0, block_size=2>(ones, two)
  z = Add(x, whole)
  y = Add(z, halves)
}
"""
VALUES = {
    "b": np.int8([1, -2, 3, 4]),
    "one": np.float32([0.5]),
    "ones": np.ones(4, np.int8),
    "two": np.float32([1, 4]),
}


def test_a_block_beside_one_scale_in_all_is_the_whole_axis() -> None:
    given = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]>{BLOCKS}')
    held = [onnx.numpy_helper.from_array(value, name) for name, value in VALUES.items()]
    given.graph.initializer.extend(held)
    blocks = [len(node.attribute) for node in runnable(given).graph.node]
    assert blocks == [1, 2, 0, 0]
    (y,) = session(given, device="cpu", threads=1).run(None, {"x": np.zeros((2, 4), np.float32)})
    expected = np.array([1.5, 0, 5.5, 6])
    np.testing.assert_allclose(y, np.broadcast_to(expected, (2, 4)), rtol=1e-6)
    assert [len(node.attribute) for node in given.graph.node] == [2, 2, 0, 0]
