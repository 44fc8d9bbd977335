"""What a pruned model says that it was judged by, and who goes by it."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import DataError
from onnxprune.graph import read_metadata, write_metadata
from onnxprune.samples import detection
from onnxprune.search.assemble import open_model
from onnxprune.search.remembered import HEAD_KEY, OUTPUTS_KEY, to_remember
from onnxprune.search.scaling import OWN_KEY
from onnxprune.search.settings import Settings
from tests.support.coloured import folder, network
from tests.support.models import images, model, run

QUICK: dict[str, Any] = {"threads": 1, "device": "cpu"}
ONCE: dict[str, Any] = {"control": "one-shot", "round_to": 1, "rate": 0.3, **QUICK}
NET = """
net (float[N,3,8,8] x) => (float[N,4] boxes, float[N,20] found)
<float[6,3,3,3] w, float[4,6] u, float[20,6] v> {
  a = Conv(x, w)
  r = Relu(a)
  p = GlobalAveragePool(r)
  f = Flatten(p)
  boxes = Gemm<transB=1>(f, u)
  found = Gemm<transB=1>(f, v)
}
"""


def heads(proto: Any, x: Any, pruned: Any = None, **asked: Any) -> list[tuple[str, str]]:
    settings = Settings(threads=1, device="cpu", **asked)
    data = open_model(proto, x, settings, pruned=pruned)[1]
    assert data is not None
    return [(head.tensor, head.kind) for head in data.heads]


def test_other_samples_are_judged_as_those_of_the_run(caplog: pytest.LogCaptureFixture) -> None:
    """Numbers that are large on some samples look like class scores, on others they do not."""
    proto = model(NET)
    x = images(proto, 24)
    others = (x * 40).astype(np.float32)
    guessed = dict(heads(proto, others))
    kind = next(k for k in ("vector", "values") if k != guessed["found"])
    small = onnxprune.prune(proto, x, outputs=[f"found={kind}", "boxes=values"], **ONCE).model
    assert json.loads(read_metadata(small)[OUTPUTS_KEY]) == {"found": kind, "boxes": "values"}
    expected = [("found", kind), ("boxes", "values")]
    assert heads(small, others) == heads(proto, others, small) == expected
    caplog.clear()
    with caplog.at_level(logging.INFO, "onnxprune"):
        assert heads(small, others, outputs=("found",)) == [("found", guessed["found"])]
    assert "by which the model was pruned" not in caplog.text
    with caplog.at_level(logging.INFO, "onnxprune"):
        found = onnxprune.compare(proto, small, others, **QUICK)
    assert "by which the model was pruned, as its metadata says" in caplog.text
    asked = onnxprune.compare(
        proto, small, others, outputs=[f"found={kind}", "boxes=values"], **QUICK
    )
    assert found["after"]["accuracy"] == asked["after"]["accuracy"]


def test_class_scores_are_read_from_the_output_that_was_named() -> None:
    proto = model(NET)
    x = images(proto, 24)
    y = run(proto, x)[1].argmax(1)
    small = onnxprune.prune(proto, (x, y), outputs=["found"], trust_baseline=True, **ONCE).model
    assert json.loads(read_metadata(small)[OUTPUTS_KEY]) == {"found": "classes"}
    found = onnxprune.compare(proto, small, (x, y), trust_baseline=True, **QUICK)
    assert found["before"]["accuracy"]["mean"] == 1.0
    assert heads(small, x) == [("found", "classes")]


def test_a_metric_of_ones_own_reads_what_it_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def wide(outputs, targets):\n    return float(outputs.shape[1] == 20)\n")
    proto = model(NET)
    data = (images(proto, 8), np.linspace(0, 1, 8))
    asked: dict[str, Any] = {"metric": f"{file}:wide"}
    small = onnxprune.prune(proto, data, outputs=["found"], **asked, **ONCE).model
    found = onnxprune.compare(proto, small, data, **asked, **QUICK)
    assert found["after"]["accuracy"]["mean"] == 1.0
    with pytest.raises(DataError, match="is 0 for every class"):
        onnxprune.compare(proto, small, data, outputs=["boxes"], **asked, **QUICK)


def test_the_head_of_a_detector_is_kept() -> None:
    proto = onnx.load(detection.MODEL)
    for asked in ({}, {"metric": "fidelity"}):
        settings = Settings(**QUICK, **asked)
        graph, data = open_model(proto, detection.REFERENCE, settings)
        assert to_remember(graph, data, settings) == {HEAD_KEY: "yolov8", OUTPUTS_KEY: ""}
    write_metadata(proto, {HEAD_KEY: "yolov5"})
    for head, asked in (("yolov5", {}), ("yolov8", {"head": "yolov8"})):
        data = open_model(proto, detection.REFERENCE, Settings(**QUICK, **asked))[1]
        assert data is not None and data.detector is not None
        assert data.detector.head == head


def test_a_head_that_is_given_reads_boxes_of_what_was_judged_by_numbers() -> None:
    proto = onnx.load(detection.MODEL)
    write_metadata(proto, {OUTPUTS_KEY: '{"output0": "values"}'})
    for asked, found in (({}, False), ({"head": "yolov8"}, True)):
        settings = Settings(**QUICK, metric="fidelity", **asked)
        data = open_model(proto, detection.REFERENCE, settings)[1]
        assert data is not None and (data.detector is not None) == found


def test_pixels_are_scaled_as_in_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    proto, place = network("caffe"), folder(tmp_path)
    small = onnxprune.prune(proto, place, preprocess="caffe", **ONCE).model
    assert read_metadata(small) == {OWN_KEY: "caffe"}
    with caplog.at_level(logging.INFO, "onnxprune"):
        found = onnxprune.compare(proto, small, place, **QUICK)
    assert "preprocess: 'caffe', as the pruned model's metadata says" in caplog.text
    assert found["before"]["accuracy"]["mean"] == 1.0
    usual = onnxprune.prune(network("imagenet"), place, **ONCE).model
    assert read_metadata(usual) == {}


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({OUTPUTS_KEY: "found=vector"}, "is no list of outputs"),
        ({OUTPUTS_KEY: '{"found": "text"}'}, "is no list of outputs"),
        ({OUTPUTS_KEY: '["found"]'}, "is no list of outputs"),
        ({OUTPUTS_KEY: '{"nothing": "vector"}'}, "has no tensor 'nothing'"),
        ({HEAD_KEY: "evil.py:decode"}, "'evil.py:decode' is no head that is known"),
    ],
)
def test_what_makes_no_sense_is_left_out_and_said(
    said: dict[str, str], match: str, caplog: pytest.LogCaptureFixture
) -> None:
    proto = model(NET)
    x = images(proto, 24)
    usual = heads(proto, x)
    write_metadata(proto, said)
    assert heads(proto, x) == usual
    assert match in caplog.text


def test_what_was_said_before_is_replaced_and_the_rest_stays() -> None:
    proto = model(NET)
    write_metadata(proto, {"author": "me", HEAD_KEY: "ssd", OUTPUTS_KEY: '{"found": "values"}'})
    whole = proto.SerializeToString()
    small = onnxprune.prune(proto, images(proto, 24), outputs=["boxes=values"], **ONCE).model
    assert read_metadata(small) == {"author": "me", OUTPUTS_KEY: '{"boxes": "values"}'}
    assert proto.SerializeToString() == whole
