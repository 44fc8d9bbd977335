"""Functions of Python take files of other frameworks, as commands do."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import onnxprune
from onnxprune import converters
from onnxprune.converters import Export, Options
from onnxprune.errors import ConversionError, InvalidModel, OnnxPruneError
from onnxprune.evaluation import session
from onnxprune.graph import Graph
from tests.support.conversion import refusal
from tests.support.models import model

FREE: dict[str, Any] = {"rate": 0.3, "control": "one-shot", "criterion": "magnitude"}
NET = model(
    """g (float[N, 3, 9, 9] x) => (float[N, 4, 5, 5] y)
    <float[8, 3, 3, 3] w, float[4, 8, 3, 3] v> { a = Conv(x, w) b = Relu(a) y = Conv(b, v) }"""
)


def export(source: str, options: Options) -> Export:
    """What a framework's own exporter is, which reads a file that happens to be ONNX."""
    proto = onnx.load(source)
    own = session(proto, device="cpu")
    return Export(proto, lambda x: own.run(None, {"x": x}), (3, 9, 9))


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(converters, "CONVERTERS", {"keras": export})
    path = tmp_path / "net.keras"
    path.write_bytes(NET.SerializeToString())
    return path


def test_a_file_is_pruned_compared_and_looked_at(saved: Path) -> None:
    result = onnxprune.prune(saved, **FREE)
    held = {entry.key: entry.value for entry in result.model.metadata_props}
    assert held["onnxprune.source"] == "net.keras"
    x = np.random.default_rng(0).standard_normal((4, 3, 9, 9)).astype(np.float32)
    before = onnxprune.compare(str(saved), result.model, x)["before"]["params"]
    assert before == onnxprune.inspect(saved)["params"] > result.report["after"]["params"]
    assert Graph.load(saved).outputs == ("y",)


def test_what_cannot_be_converted_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(nn.Conv2d(3, 8, 3), path)
    assert "onnxprune.converters.convert has options" in refusal(onnxprune.prune, path, **FREE)
    with pytest.raises(ConversionError):
        onnxprune.inspect(path)
    with pytest.raises(InvalidModel, match="no such file"):
        onnxprune.prune(tmp_path / "gone.keras", **FREE)
    for name, says in (("net.keras", "keras"), ("net.weights", "not an ONNX model")):
        (tmp_path / name).write_bytes(b"no model")
        with pytest.raises(OnnxPruneError, match=says):
            onnxprune.prune(tmp_path / name, **FREE)
