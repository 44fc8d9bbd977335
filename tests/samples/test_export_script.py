"""The sample of a pipeline: it writes a pruned graph with the answer added, or nothing."""

from pathlib import Path

import numpy as np
import onnx
from click.testing import CliRunner

import onnxprune
from onnxprune.samples import fashion_mnist
from onnxprune.samples.export_script import export
from tests.support.models import run


def test_what_is_exported_answers_as_the_pruned_network(tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    result = CliRunner().invoke(
        export.main, ["--macs", "0.8", "--fail-if", "macs_ratio > 0.8", "-o", str(out)]
    )
    assert result.exit_code == 0, result.output
    steps = [line.split()[0] for line in result.output.splitlines() if "multiply-adds" in line]
    macs = [int(step.replace(",", "")) for step in steps]
    assert macs[0] == 11_636_432 and macs[-1] <= 0.8 * macs[0]
    small = onnx.load(out)
    onnx.checker.check_model(small, full_check=True)
    assert [port.name for port in small.graph.output] == ["probabilities", "label"]
    data = onnxprune.load_data(fashion_mnist.TEST, shape=(1, 28, 28), preprocess="unit")
    shares, labels = run(small, data.x)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(labels, shares.argmax(1))
    assert (labels == data.y).mean() > 0.9


def test_a_network_that_lost_too_much_is_not_exported(tmp_path: Path) -> None:
    ask = ["--macs", "0.95", "--fail-if", "macs_ratio > 0.5"]
    result = CliRunner().invoke(export.main, [*ask, "-o", str(tmp_path / "small.onnx")])
    assert result.exit_code == 1
    assert "Error: not exported: macs_ratio > 0.5 (macs_ratio is 0.9" in result.output
    assert not list(tmp_path.iterdir())
