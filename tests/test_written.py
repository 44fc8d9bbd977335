"""A file that is not what was proven, or not as accurate as the report says, is not left behind."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune import run, written
from onnxprune.errors import OutputError, SurgeryError
from onnxprune.graph import save_model, sessions, storage
from onnxprune.written import Written
from tests.support.cuts import Cut
from tests.support.models import model
from tests.support.runs import samples
from tests.support.small_net import Small
from tests.test_proof import CHAIN

WITH_WEIGHTS = {"control": "one-shot", "rate": 0.3, "compensate": "least-squares"}


def test_a_file_is_as_accurate_as_the_report_says(small: Small, tmp_path: Path) -> None:
    result = onnxprune.prune(small.proto, samples(small), **WITH_WEIGHTS)
    assert result.save(tmp_path / "small.onnx").is_file()
    assert isinstance(result.check, Written)
    assert result.check.accuracy == result.report["after"]["accuracy"]


def test_a_report_of_another_accuracy_writes_nothing(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = run.make_report

    def flattering(*given: Any) -> dict[str, Any]:
        report = honest(*given)
        report["after"]["accuracy"]["harmonic"] = 0.999
        return report

    monkeypatch.setattr(run, "make_report", flattering)
    result = onnxprune.prune(small.proto, samples(small), **WITH_WEIGHTS)
    with pytest.raises(SurgeryError, match=r"report says a harmonic mean of 0\.999000, the writ"):
        result.save(tmp_path / "small.onnx")
    with pytest.raises(SurgeryError, match="the report says"):
        onnxprune.prune(small.proto, samples(small), run_dir=tmp_path / "run", **WITH_WEIGHTS)
    assert not list(tmp_path.rglob("*.onnx*"))


def test_no_room_to_run_a_large_model_is_no_mistake_of_the_model(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of over 2 GB is run from a temporary file."""
    result = onnxprune.prune(small.proto, criterion="magnitude", rate=0.3, control="one-shot")

    def full() -> Any:
        raise OutputError("/tmp: cannot be written (No space left on device); free some space")

    monkeypatch.setattr(sessions, "temporary", full)
    monkeypatch.setattr(storage, "MESSAGE_LIMIT", 100)
    monkeypatch.setattr(sessions, "MAPPED", 100)
    with pytest.raises(OutputError, match="No space left on device"):
        result.save(tmp_path / "small.onnx")
    assert not list(tmp_path.glob("*.onnx"))


DRAWS = itertools.count(1)


def luck(outputs: Any, targets: Any) -> list[float]:
    return [1 / next(DRAWS)] * 3


def test_a_metric_of_luck_is_not_held_to_it(small: Small, tmp_path: Path) -> None:
    options: dict[str, Any] = {**WITH_WEIGHTS, "metric": luck}
    result = onnxprune.prune(small.proto, samples(small), trust_baseline=True, **options)
    assert result.save(tmp_path / "small.onnx").is_file()


@pytest.fixture
def cut() -> Cut:
    return Cut(model(CHAIN))


def test_a_file_that_holds_another_model_is_refused(cut: Cut, tmp_path: Path) -> None:
    check = Written(cut.graph, onnxprune.graph.load_model(save_model(cut.pruned, tmp_path / "a")))
    cut.scaled("v", 1.0001)
    with pytest.raises(OutputError, match="reads back otherwise"):
        save_model(cut.pruned, tmp_path / "b.onnx", check=check)
    assert not (tmp_path / "b.onnx").exists()


def test_a_file_that_gives_another_bit_is_refused_and_its_node_named(
    cut: Cut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(written, "reads_back", lambda _: lambda _: None)
    check = Written(cut.graph, onnxprune.graph.load_model(save_model(cut.pruned, tmp_path / "a")))
    check(save_model(cut.pruned, tmp_path / "same.onnx"))
    cut.scaled("v", float(np.nextafter(np.float32(1), np.float32(2))) + 1e-6)
    with pytest.raises(SurgeryError, match=r"other outputs .* that differs is Conv 'b', whose"):
        save_model(cut.pruned, tmp_path / "b.onnx", check=check)
