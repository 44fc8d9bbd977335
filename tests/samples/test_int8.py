"""The INT8 sample: four variants, each written where it is right, and as small as it says."""

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from onnxprune.samples.int8 import prune_and_quantise as sample

VARIANTS = ["float", "pruned", "INT8", "both"]


@pytest.mark.slow
def test_the_program_measures_float_pruned_int8_and_both(tmp_path: Path) -> None:
    result = CliRunner().invoke(sample.main, ["--macs", "0.6", "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines() if line[:11] == "onnxruntime"]
    assert [line[1] for line in lines] == VARIANTS
    sizes, scores = ([float(line[k]) for line in lines] for k in (2, 4))
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3]
    assert min(scores) > 0.85 and scores[0] == 0.930
    rows = json.loads((tmp_path / "edge" / "deploy.json").read_text(encoding="utf-8"))["rows"]
    assert [f"{row['accuracy']['harmonic']:.3f}" for row in rows] == [line[4] for line in lines]
    both = onnx.load(tmp_path / "edge" / "small.int8.onnx")
    assert "QuantizeLinear" in {node.op_type for node in both.graph.node}
