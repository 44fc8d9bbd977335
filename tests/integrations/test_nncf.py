"""What NNCF makes of a pruned model is small, runs, and knows the classes."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune

pytest.importorskip("nncf")

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "integrations.md"
SAMPLE = ROOT / "samples" / "fashion_mnist"


@pytest.mark.filterwarnings("ignore")
def test_the_page_can_be_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(
        r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    (block,) = [block for block in blocks if "nncf.quantize(" in block]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes((SAMPLE / "model.onnx").read_bytes())
    read = onnxprune.load_data(SAMPLE / "reference", shape=(1, 28, 28))
    np.savez("reference.npz", x=read.x, y=read.y)
    exec(block.replace("max_drop", 'threads=1, control="one-shot", macs=0.6, max_drop'), held := {})
    kinds = {node.op_type for node in onnx.load("int8.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    pruned = held["result"].report["after"]
    assert float(capsys.readouterr().out.splitlines()[-1]) > pruned["accuracy"]["harmonic"] - 0.05
    assert Path("int8.onnx").stat().st_size < 0.5 * pruned["size_bytes"]
