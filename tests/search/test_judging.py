"""What a run is judged by: labels or the unpruned model, and which of its tensors."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxprune
from onnxprune.data import Data, load_data
from onnxprune.errors import (
    DataError,
    InvalidModel,
    InvalidValue,
    OnnxPruneError,
)
from onnxprune.evaluation import FIDELITY
from onnxprune.graph import Graph
from onnxprune.search.assemble import complete, open_model
from onnxprune.search.evaluators import metric_name
from onnxprune.search.judging import judged
from onnxprune.search.outcome import make_evaluator
from onnxprune.search.settings import Settings
from tests.support.coloured import network, pixels
from tests.support.models import images, model, run
from tests.support.small_net import Small

QUICK: dict[str, Any] = {"threads": 1, "device": "cpu"}
SETTINGS = Settings(threads=1, device="cpu")
TWO = """
net (float[N,3,8,8] x) => (float[N,4] boxes, float[N,5] logits)
<float[6,3,3,3] w, float[4,6] u, float[5,6] v> {
  a = Conv(x, w)
  r = Relu(a)
  p = GlobalAveragePool(r)
  f = Flatten(p)
  offsets = Gemm<transB=1>(f, u)
  boxes = Abs(offsets)
  logits = Gemm<transB=1>(f, v)
}
"""


def opened(proto: onnx.ModelProto, source: Any, **asked: Any) -> Data:
    data = open_model(proto, source, Settings(threads=1, device="cpu", **asked))[1]
    assert data is not None
    return data


def refused(kind: type[OnnxPruneError], match: str, proto: Any, source: Any, **asked: Any) -> None:
    with pytest.raises(kind, match=match) as caught:
        opened(proto, source, **asked)
    assert "\n" not in str(caught.value)


# The metric


def test_without_labels_agreement_with_the_unpruned_model_decides(small: Small) -> None:
    bare = load_data(small.x, shape=small.x.shape[1:])
    full = load_data((small.x, small.y), shape=small.x.shape[1:])
    assert metric_name(bare, SETTINGS) == FIDELITY and metric_name(full, SETTINGS) == "top-1"
    assert metric_name(full, Settings(metric=FIDELITY)) == FIDELITY
    assert complete(SETTINGS, bare).floor.max_drop == 0.05
    assert complete(SETTINGS, full).floor.max_drop == 0.01
    assert complete(Settings(metric=FIDELITY), full).floor.max_drop == 0.05


@pytest.mark.parametrize("metric", ["top-1", "top-5", "mean-iou"])
def test_labels_that_are_asked_for_and_missing_are_refused(small: Small, metric: str) -> None:
    refused(
        DataError,
        f"metric '{metric}': needs labels and the samples have none",
        small.proto,
        small.x,
        metric=metric,
    )


# The outputs


@pytest.mark.parametrize("metric", ["auto", "fidelity"])
def test_a_head_is_refused_where_no_boxes_are_judged(small: Small, metric: str) -> None:
    asked = {"head": "nanodet", "metric": metric}
    refused(DataError, "head 'nanodet': no boxes are judged", small.proto, small.x, **asked)
    labelled = (small.x, small.y)
    refused(DataError, "leave out --head", small.proto, labelled, **asked)


def same_answer() -> tuple[onnx.ModelProto, np.ndarray]:
    """A model of two class scores, and samples to which it gives one answer."""
    text = """
    net (float[N,3,8,8] x) => (float[N,2] y)
    <float[6,3,3,3] w, float[6,2] v, float[2] b> {
      a = Conv(x, w)
      r = Relu(a)
      p = GlobalAveragePool(r)
      f = Flatten(p)
      m = MatMul(f, v)
      l = Add(m, b)
      y = Softmax<axis=1>(l)
    }
    """
    proto = model(text)
    x = images(proto, 60) / 10
    best = run(proto, x)[0].argmax(1)
    return proto, x[best == np.bincount(best).argmax()][:30]


def test_one_answer_to_all_samples_is_judged_by_its_numbers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A model that always gives it would agree, whatever else became of it."""
    proto, x = same_answer()
    assert opened(proto, x).heads[0].kind == "values"
    assert "gives all 30 samples one answer, so its numbers are judged" in caplog.text
    refused(DataError, "one answer, so a model that always", proto, x, outputs=("y=classes",))
    trusted = opened(proto, x, outputs=("y=classes",), trust_baseline=True)
    assert trusted.heads[0].kind == "classes"
    found = onnxprune.prune(proto, x, control="accuracy-aware", round_to=1, **QUICK).report
    assert found["rate"] < 0.9


def test_every_output_is_judged_and_its_reference_kept() -> None:
    proto = model(TWO)
    x = images(proto, 30)
    data = opened(proto, x)
    assert [(h.tensor, h.kind) for h in data.heads] == [("boxes", "values"), ("logits", "classes")]
    assert data.reference is not None
    for name, values in zip(("boxes", "logits"), run(proto, x), strict=True):
        np.testing.assert_allclose(data.reference[name], values, rtol=1e-4, atol=1e-5)


def test_outputs_are_named_with_what_they_hold(caplog: pytest.LogCaptureFixture) -> None:
    proto = model(TWO)
    x = images(proto, 30)
    with caplog.at_level(logging.INFO, "onnxprune"):
        data = opened(proto, x, outputs=("logits=vector", "f"))
    assert [h.tensor for h in data.heads] == ["logits", "f"] and data.heads[0].kind == "vector"
    assert "output 'logits' [N, 5] is a vector: its direction has to stay" in caplog.text


def test_labels_of_the_model_itself_are_its_classes() -> None:
    proto = model(TWO)
    x = images(proto, 30)
    data = opened(proto, x, outputs=("logits",))
    assert data.y.tolist() == run(proto, x)[1].argmax(1).tolist() and len(data.classes) == 5
    assert not data.labelled


@pytest.mark.parametrize(
    ("outputs", "match"),
    [
        (("logit",), r"outputs: tensor 'logit': unknown; .*(did you mean|expected).*logits"),
        (("logits=class",), "outputs: 'class' of 'logits'; expected classes, vector, sequence"),
        (("nothing=classes",), "outputs: tensor 'nothing': unknown"),
    ],
)
def test_outputs_that_do_not_exist_are_refused(outputs: tuple[str, ...], match: str) -> None:
    proto = model(TWO)
    with pytest.raises((OnnxPruneError, ValueError), match=match) as caught:
        opened(proto, images(proto, 6), outputs=outputs)
    assert "\n" not in str(caught.value)


def test_class_scores_for_labels_are_the_first_output_or_the_one_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    proto = model(TWO)
    x, y = images(proto, 8), np.arange(8) % 4
    opened(proto, (x, y))
    assert "the model has 2 outputs (boxes, logits): class scores are read from" in caplog.text
    data = opened(proto, (x, y), outputs=("logits",))
    assert [head.tensor for head in data.heads] == ["logits"]
    refused(
        InvalidValue,
        "outputs: boxes, logits; expected one",
        proto,
        (x, y),
        outputs=("boxes", "logits"),
    )


def test_the_same_outputs_for_all_samples_tell_nothing(small: Small) -> None:
    same = np.repeat(small.x[:1], 8, 0)
    refused(DataError, "the same outputs for all 8 samples", small.proto, same)
    assert len(opened(small.proto, same, trust_baseline=True)) == 8


# Outputs that jump


SELECTED = {
    "NonMaxSuppression": (
        """
net (float[1,3,8,8] x) => (int64[R,3] chosen)
<float[4,3,1,1] w, float[1,3,1,1] v> {
  a = Conv(x, w)
  t = Transpose<perm=[0,2,3,1]>(a)
  s = Constant<value_ints=[1,64,4]>()
  boxes = Reshape(t, s)
  c = Conv(x, v)
  k = Constant<value_ints=[1,1,64]>()
  scores = Reshape(c, k)
  most = Constant<value_int=5>()
  chosen = NonMaxSuppression(boxes, scores, most)
}
""",
        ["boxes", "scores"],
    ),
    "TopK": (
        """
net (float[N,3,8,8] x) => (float[N,2] best, int64[N,2] place) <float[6,3,1,1] w> {
  a = Conv(x, w)
  p = GlobalAveragePool(a)
  f = Flatten(p)
  k = Constant<value_ints=[2]>()
  best, place = TopK(f, k)
}
""",
        ["f"],
    ),
    "ArgMax": (
        """
net (float[N,3,8,8] x) => (int64[N,8,8] map) <float[6,3,1,1] w> {
  a = Conv(x, w)
  map = ArgMax<axis=1, keepdims=0>(a)
}
""",
        ["a"],
    ),
    "masked": (
        """
net (float[N,3,8,8] x) => (int64[N,1] most) <float[6,3,1,1] w> {
  a = Conv(x, w)
  p = GlobalAveragePool(a)
  f = Flatten(p)
  zero = Constant<value_float=0.0>()
  low = Constant<value_float=-1e30>()
  allowed = Greater(f, zero)
  m = Where(allowed, f, low)
  k = Constant<value_ints=[0,1,0,1]>()
  wide = Pad(m, k, low)
  most = ArgMax<axis=1>(wide)
}
""",
        ["f"],
    ),
}


@pytest.mark.parametrize(("text", "into"), SELECTED.values(), ids=SELECTED)
def test_what_is_chosen_from_is_judged(text: str, into: list[str]) -> None:
    graph = Graph(model(text))
    for output in graph.outputs:
        assert sorted(judged(graph, output)) == into
    data = opened(graph.model, images(graph.model, 6))
    assert sorted(head.tensor for head in data.heads) == into


def test_a_map_of_classes_has_labels_of_the_model_itself() -> None:
    proto = model(SELECTED["ArgMax"][0])
    x = images(proto, 6)
    data = opened(proto, x)
    assert data.heads[0].kind == "classes" and data.heads[0].axis == 1
    np.testing.assert_array_equal(data.y, run(proto, x)[0])


def test_an_output_beside_a_selection_is_judged_itself() -> None:
    graph = Graph(model(TWO))
    assert [judged(graph, name) for name in graph.outputs] == [["boxes"], ["logits"]]


def test_integers_cannot_be_judged_and_are_left_out_beside_others() -> None:
    proto = model("""
    net (float[N,3,8,8] x) => (float[N,6] y, int64[N] count) <float[6,3,1,1] w> {
      a = Conv(x, w)
      p = GlobalAveragePool(a)
      y = Flatten(p)
      axes = Constant<value_ints=[1,2,3]>()
      s = ReduceSum<keepdims=0>(x, axes)
      count = Cast<to=7>(s)
    }
    """)
    x = images(proto, 6)
    assert [head.tensor for head in opened(proto, x).heads] == ["y"]
    refused(InvalidModel, "output 'count' is int64, so agreement", proto, x, outputs=("count",))


# Runs


def test_the_plan_needs_no_labels(small: Small) -> None:
    """Where labels are the model's own answers, a target's plan is the same with and without."""
    asked: dict[str, Any] = {**QUICK, "macs": 0.6}
    with_labels = onnxprune.prune(small.proto, (small.x, small.y), **asked)
    without = onnxprune.prune(small.proto, small.x, **asked)
    assert without.plan == with_labels.plan
    assert without.model.graph == with_labels.model.graph


def test_a_flat_folder_is_pruned_exactly(tmp_path: Path) -> None:
    """Nothing but a model and images: the pruned model is the masked one."""
    x, _ = pixels(4)
    for k, one in enumerate(x):
        Image.fromarray(one.astype(np.uint8)).save(tmp_path / f"{k:02}.png")
    done = onnxprune.prune(network(), tmp_path, preprocess="unit", compensate="none", **QUICK)
    report = done.report
    assert (
        report["after"]["accuracy"]["harmonic"] >= report["before"]["accuracy"]["harmonic"] - 0.05
    )
    assert report["before"]["accuracy"]["harmonic"] == pytest.approx(1)


def test_a_metric_of_ones_own_reads_the_output_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def wide(outputs, targets):\n    return float(outputs.shape[1] == 5)\n")
    proto = model(TWO)
    data = load_data((images(proto, 8), np.arange(8) % 4), shape=(3, 8, 8))
    for outputs, found in (((), 0.0), (("logits",), 1.0)):
        settings = Settings(**QUICK, metric=f"{file}:wide", outputs=outputs)
        samples = open_model(proto, data, settings)[1]
        assert samples is not None
        assert make_evaluator(samples, settings)(proto).mean == found


def test_of_a_picture_what_is_added_counts(caplog: pytest.LogCaptureFixture) -> None:
    proto = model(
        """
        net (float[N,1,8,8] x) => (float[N,1,8,8] y)
        <float[1,1,3,3] w, float[1] s = {0.1}>
        { n = Conv<pads=[1,1,1,1]>(x, w) m = Mul(n, s) y = Sub(x, m) }
        """
    )
    given = Data(images(proto, 20), np.zeros(20, np.int64), ("all",), labelled=False)
    with caplog.at_level(logging.INFO):
        (head,) = opened(proto, given, metric="fidelity").heads
    assert head.residual is not None
    assert head.residual[0] < 0.2
    assert "a picture that it is given: what it adds to it has to stay" in caplog.text
