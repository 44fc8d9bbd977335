"""A network with an operator of the user's own, from the file to the page of the run."""

import json
from pathlib import Path

import onnx
import pytest

import onnxprune
from onnxprune.cli.tables import before_after_table, step_line
from onnxprune.report.page import write_page
from tests.support.models import model

OWN = """
net (float[N,3,8,8] x) => (float[N,2,8,8] y)
<float[6,3,3,3] w1, float[8,6,1,1] w2, float[6,8,3,3] w3, float[2,6,1,1] w4> {
  a = Conv<pads=[1,1,1,1]>(x, w1)
  b = Conv(a, w2)
  c = acme.Warp(b)
  d = Conv<pads=[1,1,1,1]>(c, w3)
  y = Conv(d, w4)
}
"""
ACME = '<ir_version: 8, opset_import: ["": 17, "acme": 1]>'


def test_a_run_says_which_multiply_adds_are_not_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proto = model(OWN, header=ACME)
    del proto.opset_import[1]  # a plugin: neither schema nor import
    onnx.save(proto, tmp_path / "net.onnx")
    result = onnxprune.prune(
        tmp_path / "net.onnx",
        run_dir=tmp_path / "run",
        **{"control": "one-shot", "criterion": "magnitude", "rate": 0.5, "round_to": 1},
    )
    assert {"a": 3, "d": 3} == {node: len(gone) for node, gone in result.plan.removed.items()}
    assert "the multiply-adds of 'd' are not known" in caplog.text
    report = json.loads((tmp_path / "run" / "report.json").read_text("utf-8"))
    assert [report[side]["macs"] for side in ("before", "after")] == [None, None]
    assert report["after"]["params"] == 3 * 3 * 9 + 8 * 3 + 3 * 8 * 9 + 2 * 3
    (_, macs, *_) = before_after_table(report).columns[1].cells
    assert macs == "unknown"
    assert "unknown MACs" in step_line({"rate": 0.5, "params": 9, "macs": None}, None)
    assert "unknown" in write_page(tmp_path / "run").read_text("utf-8")
