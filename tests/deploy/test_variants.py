"""A model deployed in float and in INT8, and the unpruned one beside it."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from onnxprune.cli.commands import main
from onnxprune.deploy import deploy, problems
from onnxprune.errors import DataError, InvalidModel, InvalidValue
from onnxprune.runtimes import RECORD
from tests.support.deployed import NET
from tests.support.models import model, run
from tests.support.runtimes import write_runtime

OTHER = model(
    """g (float[N, 3, 8, 8] x) => (float[N, 4] z) <float[4, 3, 3, 3] w> {
        c = Conv(x, w) p = GlobalMaxPool(c) z = Flatten(p)
    }"""
)
ASKED: dict[str, Any] = {"int8": "onnxruntime", "max_drop": 0.1, "threads": 1}


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    x = np.random.default_rng(0).standard_normal((40, 3, 8, 8)).astype(np.float32)
    y = run(NET, x)[0].argmax(1)
    y[::5] = (y[::5] + 1) % 4
    np.savez(tmp_path / "samples.npz", x=x, y=y)
    return tmp_path / "samples.npz"


def variants(record: dict[str, Any]) -> list[str]:
    return [row["variant"] for row in record["rows"]]


def test_both_are_measured_and_written(net: Path, samples: Path, tmp_path: Path) -> None:
    folder = tmp_path / "edge"
    record = deploy(net, folder, samples, calibrate=samples, **ASKED)
    assert variants(record) == ["float", "INT8"]
    plain, small = record["rows"]
    assert {p.name for p in folder.iterdir()} == {"net.onnx", "net.int8.onnx", RECORD}
    assert plain["max_error"] == 0 < small["max_error"]
    assert small["accuracy"]["harmonic"] >= plain["accuracy"]["harmonic"] - 0.15
    assert small["latency_ms"] > 0 and not problems(record)
    (told,) = record["int8"]
    assert told["nodes"] >= 1 and told["made_by"].startswith("onnxruntime")
    kinds = {n.op_type for n in onnx.load(folder / "net.int8.onnx").graph.node}
    assert "DequantizeLinear" in kinds


def test_the_unpruned_model_is_measured_beside(net: Path, samples: Path, tmp_path: Path) -> None:
    folder = tmp_path / "edge"
    record = deploy(net, folder, samples, original=NET, calibrate=samples, **ASKED)
    assert variants(record) == ["float", "pruned", "INT8", "both"]
    assert {p.name for p in folder.iterdir()} == {"net.onnx", "net.int8.onnx", RECORD}
    assert [row["files"] for row in record["rows"][::2]] == [[], []]


def test_another_model_beside_is_refused(net: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"^original: .*gives z.*give the unpruned model"):
        deploy(net, tmp_path / "edge", original=OTHER)


def test_what_breaks_the_floor_is_not_written(net: Path, samples: Path, tmp_path: Path) -> None:
    folder = tmp_path / "edge"
    record = deploy(
        net, folder, samples, calibrate=samples, int8="onnxruntime", min_accuracy=1.0, threads=1
    )
    assert not (folder / "net.int8.onnx").exists() and (folder / "net.onnx").exists()
    assert "INT8: failed, int8: no layer can be quantised within the floor" in problems(record)


def test_a_runtime_of_ones_own_is_held_against_the_float_model(
    net: Path, samples: Path, tmp_path: Path
) -> None:
    """Rounding may differ from onnxruntime's, but not by much."""
    (tmp_path / "own").mkdir()
    right = write_runtime(tmp_path / "own" / "right.py")
    wrong = write_runtime(
        tmp_path / "own" / "wrong.py", running="rows = [row + abs(row).max() for row in rows]"
    )
    record = deploy(
        net, tmp_path / "edge", samples, to=(str(right), str(wrong)), calibrate=samples, **ASKED
    )
    assert [row["status"] for row in record["rows"]] == ["done", "done", "wrong", "wrong"]


def test_a_runtime_without_qdq_says_so(net: Path, samples: Path, tmp_path: Path) -> None:
    record = deploy(
        net, tmp_path / "edge", samples, to=("onnxruntime", "ncnn"), calibrate=samples, **ASKED
    )
    row = record["rows"][-1]
    assert (row["status"], row["variant"]) == ("missing", "INT8")
    assert "no INT8 of QDQ form" in row["reason"]


def test_int8_needs_a_runtime_that_computes_it(net: Path, samples: Path, tmp_path: Path) -> None:
    folder = tmp_path / "edge"
    with pytest.raises(InvalidValue, match=r"asked for \(mnn, ncnn\) computes no INT8.*openvino"):
        deploy(net, folder, samples, to=("mnn", "ncnn"), calibrate=samples, **ASKED)
    assert not folder.exists()


def test_int8_needs_samples_to_calibrate(net: Path, samples: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give --calibrate REF"):
        deploy(net, tmp_path / "edge", samples, int8="onnxruntime")
    with pytest.raises(DataError, match="give --int8, too"):
        deploy(net, tmp_path / "edge", samples, calibrate=samples)


def test_from_the_command_line(net: Path, samples: Path, tmp_path: Path) -> None:
    options = ["deploy", str(net), "--data", str(samples), "-o", str(tmp_path / "edge")]
    options += ["--int8", "--calibrate", str(samples), "--max-drop", "0.1", "--threads", "1"]
    done = CliRunner(env={"COLUMNS": "160"}).invoke(main, options)
    assert done.exit_code == 0, done.output
    assert "onnxruntime, INT8" in done.output
    assert "on the calibration samples" in done.output
    refused = CliRunner(env={"COLUMNS": "160"}).invoke(main, [*options, "--min-accuracy", "1"])
    assert refused.exit_code == 1 and "not written" in refused.output


def test_it_is_told_which_share_of_the_search_and_of_the_samples_is_done(
    net: Path, samples: Path, tmp_path: Path
) -> None:
    told: list[tuple[str, float | None]] = []
    asked = {**ASKED, "calibrate": samples, "to": ("onnxruntime",)}
    deploy(net, tmp_path / "e", samples, on_step=lambda *one: told.append(one), **asked)
    said = dict(told)
    assert said["onnxruntime: running 40 samples"] == 0
    assert "INT8: comparing its outputs with those in float" in said
    shares = {line: share for line, share in told if line.startswith("INT8: eval")}
    first, second, *_ = shares
    assert re.fullmatch(r"INT8: evaluated in float, harmonic mean [\d.]+ %", first)
    assert second.startswith("INT8: evaluation 1") and shares[first] == 0
    assert all(share is not None and share <= 1 for share in shares.values())
