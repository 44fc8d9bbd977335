"""onnxruntime's quantiser on small nets, and nets that need a part in float."""

import importlib
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from onnxprune.data import Data
from onnxprune.deploy.int8 import quantise
from onnxprune.deploy.quantiser import StaticQuantiser, prepared, saturates
from onnxprune.errors import InvalidModel
from onnxprune.graph import storage
from onnxprune.progress import heard_by
from onnxprune.search import Floor, Settings, make_evaluator, open_model
from tests.support.models import images, model, relative_error, run

NET = """
g (float[N,3,16,16] x) => (float[N,6,16,16] y)
<float[8,3,3,3] w, float[8] b, float[8,8,3,3] v, float[4,8,1,1] box, float[2,8,1,1] score,
 float far = {20}> {
  a = Conv<pads=[1,1,1,1]>(x, w, b)
  r = Relu(a)
  c = Conv<pads=[1,1,1,1]>(r, v)
  s = Relu(c)
  p = Conv(s, box)
  m = Mul(p, far)
  q = Conv(s, score)
  f = Sigmoid(q)
  y = Concat<axis=1>(m, f)
}
"""

WIDE = """
g (float[N,3,4,4] x) => (float[N,6,4,4] y)
<float[40,3,1,1] w, float[40,40,1,1] v, float[6,40,1,1] u> {
  a = Conv(x, w)
  r = Relu(a)
  c = Conv(r, v)
  s = Relu(c)
  y = Conv(s, u)
}
"""
"""With a weight that is large enough for a file of its own."""


def named(text: str = NET) -> ModelProto:
    """A net whose nodes are named after what they write."""
    proto = model(text)
    for node in proto.graph.node:
        node.name = node.output[0]
    return proto


def plain(proto: ModelProto, count: int = 12) -> Data:
    x = images(proto, count)
    return Data(x, np.zeros(count, np.int64), ("all",), labelled=False)


def test_boxes_and_scores_in_one_tensor_stay_in_float() -> None:
    """The naive model gives the scores the scale of the boxes, so that nothing is left of them."""
    proto = named()
    asked = Settings(threads=1)
    _, data = open_model(proto, plain(proto), asked)
    assert data is not None
    judge = make_evaluator(data, asked)
    found = quantise(StaticQuantiser(proto, data), judge, Floor(max_drop=0.05))
    assert found.plain.harmonic < 0.5
    assert found.accuracy.harmonic > 0.95
    assert "y" in found.kept
    assert {"a", "c"}.isdisjoint(found.kept), "the body is in INT8"


def test_weights_have_a_scale_for_each_filter() -> None:
    proto = named()
    small = StaticQuantiser(proto, plain(proto))([])
    weights = {t.name: t for t in small.graph.initializer}
    assert weights["w_quantized"].data_type == onnx.TensorProto.INT8
    assert list(weights["w_scale"].dims) == [8]


def test_what_is_kept_computes_as_before() -> None:
    proto = named()
    quantiser = StaticQuantiser(proto, plain(proto))
    x = images(proto, 2, seed=5)
    (expected,) = run(proto, x)
    (same,) = run(quantiser(quantiser.nodes), x)
    (near,) = run(quantiser(["y", "m", "f", "p", "q"]), x)
    assert relative_error(same, expected) < 1e-6
    assert 1e-6 < relative_error(near, expected) < 0.05


def test_activations_can_be_symmetric() -> None:
    proto = named()
    small = StaticQuantiser(proto, plain(proto), symmetric=True)([])
    points = [numpy_helper.to_array(t) for t in small.graph.initializer if "zero_point" in t.name]
    assert points and all(not point.any() for point in points)


def test_a_fixed_batch_is_kept() -> None:
    proto = named(NET.replace("N,", "4,"))
    small = StaticQuantiser(proto, plain(proto, 6))([])
    assert run(small, images(proto, 4))[0].shape == (4, 6, 16, 16)


def test_names_and_metadata_stay_and_nodes_get_names() -> None:
    proto = model(NET)
    onnx.helper.set_model_props(proto, {"names": "{0: 'cat'}"})
    found = prepared(proto)
    assert {one.key: one.value for one in found.metadata_props}["names"] == "{0: 'cat'}"
    names = [node.name for node in found.graph.node]
    assert all(names) and len(set(names)) == len(names)
    assert [value.name for value in found.graph.output] == ["y"]


def test_an_old_opset_is_raised() -> None:
    proto = model(NET, header='<ir_version: 7, opset_import: ["": 11]>')
    small = StaticQuantiser(proto, plain(proto))([])
    assert small.opset_import[0].version >= 13
    assert run(small, images(proto, 1))[0].shape == (1, 6, 16, 16)


def test_a_quantised_model_is_refused() -> None:
    proto = named()
    small = StaticQuantiser(proto, plain(proto))([])
    with pytest.raises(InvalidModel, match="quantised already; give the one in float"):
        StaticQuantiser(small, plain(proto))


def test_sums_that_overflow_are_seen() -> None:
    """Whether they do depends on the CPU; weights of 7 bits never do."""
    proto = named()
    small = StaticQuantiser(proto, plain(proto))([])
    top = max(
        int(np.abs(numpy_helper.to_array(t).astype(int)).max())
        for t in small.graph.initializer
        if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4
    )
    assert top == (64 if saturates() else 127)


def test_a_model_beyond_a_message_is_quantised_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights go through files of their own, in all that onnxruntime's tools write."""
    tools = importlib.import_module("onnxruntime.quantization")
    told: list[bool] = []

    def spied(name: str, key: str) -> Any:
        own = getattr(tools, name)

        def call(*given: Any, **more: Any) -> Any:
            told.append(more[key])
            return own(*given, **more)

        return call

    proto = named(WIDE)
    before = StaticQuantiser(proto, plain(proto))([])
    for name, key in (
        ("quant_pre_process", "save_as_external_data"),
        ("create_calibrator", "use_external_data_format"),
    ):
        monkeypatch.setattr(tools, name, spied(name, key))
    for limit in (storage.MESSAGE_LIMIT, 4000):
        monkeypatch.setattr(storage, "MESSAGE_LIMIT", limit)
        after = StaticQuantiser(proto, plain(proto))([])
        assert list(after.graph.initializer) == list(before.graph.initializer)
        assert [node.output for node in after.graph.node] == [n.output for n in before.graph.node]
    assert told == [False, False, True, True]


def test_no_model_is_written_for_each_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shapes that onnxruntime's quantiser would write a model for are known."""
    proto = named()
    quantiser = StaticQuantiser(proto, plain(proto))

    def write(*_: Any, **__: Any) -> None:
        raise AssertionError("written")

    monkeypatch.setattr(onnx, "save_model", write)
    quantiser([])


@pytest.mark.parametrize(("axis", "runs"), [("N", 6), ("4", 2)])
def test_it_is_told_how_far_calibration_is(axis: str, runs: int) -> None:
    proto, heard = named(NET.replace("N,", f"{axis},")), list[tuple[str, int, int]]()
    with heard_by(lambda *said: heard.append(said)):
        StaticQuantiser(proto, plain(proto, 6))
    assert heard == [("calibrating", done, runs) for done in range(runs + 1)]
