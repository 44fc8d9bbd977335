"""TensorRT's module, with a stand-in for TensorRT and CUDA: the order of its calls, and its copies.

What TensorRT itself computes was not tried: there is no GPU.
"""

import importlib.util
from pathlib import Path
from typing import Any

import onnx
import pytest

from onnxprune.deploy import deploy, problems
from onnxprune.runtimes import RUNTIMES
from tests.support.models import model
from tests.support.tensorrt_stand_in import write_stand_in

NET = model(
    """g (float[N, 3, 8, 8] x, float[N, 2] extra) => (float[N, 4] y, int64[N, 1] k)
    <float[4, 3, 3, 3] w, float[2, 4] v> {
        c = Conv(x, w) p = GlobalMaxPool(c) f = Flatten(p)
        e = MatMul(extra, v) y = Add(f, e) k = ArgMax<axis = 1>(y)
    }"""
)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = write_stand_in(tmp_path / "packages")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def deployed(proto: onnx.ModelProto, folder: Path) -> tuple[dict[str, Any], str]:
    record = deploy(proto, folder / "edge", to=("tensorrt",), threads=1)
    (row,) = record["rows"]
    return row, problems(record)


def test_what_is_built_runs_and_agrees(stand_in: Path, tmp_path: Path) -> None:
    row, problem = deployed(NET, tmp_path)
    assert (row["status"], problem) == ("done", ""), row
    assert row["files"] == ["model.engine"] and row["latency_ms"] > 0
    assert row["relative_error"] < 1e-6  # rounded to TF32 it would be 1e-4


def test_what_its_parser_says_is_the_reason(stand_in: Path, tmp_path: Path) -> None:
    proto = onnx.ModelProto.FromString(NET.SerializeToString())
    proto.graph.node[0].name = "refuse me"
    row, problem = deployed(proto, tmp_path)
    assert row["status"] == "failed" and "In node 3: unsupported" in problem
    assert not list((tmp_path / "edge").glob("*.engine"))


def test_an_error_of_cuda_ends_the_row(stand_in: Path, tmp_path: Path) -> None:
    text = stand_in / "cuda" / "bindings" / "runtime.py"
    broken = text.read_text(encoding="utf-8").replace("def cudaMalloc(size):", "def _malloc(size):")
    broken += "\ndef cudaMalloc(size): return cudaError_t.cudaErrorInvalidValue, None\n"
    text.write_text(broken, encoding="utf-8")
    row, problem = deployed(NET, tmp_path)
    assert row["status"] == "failed" and "CUDA: " in problem


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="it is installed here")
def test_where_it_is_missing_the_row_says_how_to_install_it(tmp_path: Path) -> None:
    row, problem = deployed(NET, tmp_path)
    assert row["status"] == "missing" and "onnxprune[tensorrt]" in problem
    assert RUNTIMES["tensorrt"].extra == "tensorrt"
