"""Where times decide: a floor alone has none measured, and what was measured once stays."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

import onnxprune
from onnxprune.errors import NOTICE, RunDirectoryError
from onnxprune.reproduction import reproduce
from onnxprune.search import nets
from tests.support.small_net import Small

FLOOR: dict[str, Any] = {"max_drop": 0.3, "threads": 1, "device": "cpu", "compensate": "bias"}
"""A floor and no target, so that latency decides, as it is estimated."""
MEASURED = {**FLOOR, "aim": "latency"}


@pytest.fixture(scope="module")
def finished(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    onnxprune.prune(str(small.path), str(small.data), run_dir=folder, **MEASURED)
    return folder


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be timed."""

    def measured(*_: Any, **__: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(nets, "measure_latency", measured)


@pytest.mark.usefixtures("untimed")
def test_a_floor_alone_measures_nothing(small: Small, tmp_path: Path) -> None:
    onnxprune.prune(str(small.path), str(small.data), run_dir=tmp_path / "run", **FLOOR)
    assert not (tmp_path / "run" / "latency.json").exists()
    said = {**FLOOR, "aim": "estimated-latency"}
    onnxprune.prune(str(small.path), str(small.data), run_dir=tmp_path / "said", **said)
    for name in ("plan.json", "pruned.onnx"):
        assert (tmp_path / "said" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


@pytest.mark.usefixtures("untimed")
@pytest.mark.parametrize("again", [onnxprune.prune, reproduce])
def test_a_floor_alone_of_an_earlier_version_goes_by_the_times_that_it_measured(
    again: Any, finished: Path, tmp_path: Path, small: Small
) -> None:
    """Latency was measured then where nothing else was asked for."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["aim"] = None
    (folder / "config.json").write_text(json.dumps(config))
    if again is reproduce:
        assert reproduce(folder)["equal"]
        return
    journal = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    (folder / "journal.jsonl").write_text("".join(journal[:2]))
    onnxprune.prune(str(small.path), str(small.data), run_dir=folder, resume=True, **FLOOR)
    for name in ("plan.json", "pruned.onnx"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.usefixtures("untimed")
def test_a_run_is_done_again_with_the_times_that_it_measured(finished: Path) -> None:
    assert (finished / "latency.json").exists()
    found = reproduce(finished)
    assert found["equal"] and found["step"] is None
    assert found["around"] == []


@pytest.mark.usefixtures("untimed")
def test_a_new_run_goes_by_the_times_of_another(
    finished: Path, small: Small, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(finished / "latency.json", folder)
    with caplog.at_level(NOTICE):
        onnxprune.prune(str(small.path), str(small.data), run_dir=folder, **FLOOR)
    assert "what layers cost in time is what latency.json says; none is timed" in caplog.text
    for name in ("plan.json", "pruned.onnx", "latency.json"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()


def test_the_times_of_another_model_are_refused_and_stay(
    finished: Path, small: Small, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    content = json.loads((finished / "latency.json").read_text())
    content["times"]["of another"] = 1.0
    (folder / "latency.json").write_text(json.dumps(content))
    said = r"latency\.json: has the time of 'of another', which the model has not; take"
    with pytest.raises(RunDirectoryError, match=said):
        onnxprune.prune(str(small.path), str(small.data), run_dir=folder, **FLOOR)
    assert [one.name for one in folder.iterdir()] == ["latency.json"]
    assert json.loads((folder / "latency.json").read_text()) == content


def test_the_times_of_a_run_that_never_began_go(
    finished: Path, small: Small, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was killed before its first step, and may have had other settings."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("latency.json", "config.json"):
        shutil.copy(finished / name, folder)
    with caplog.at_level(logging.INFO):
        onnxprune.prune(str(small.path), str(small.data), run_dir=folder, **MEASURED)
    assert "none is timed" not in caplog.text
    assert (folder / "latency.json").read_bytes() != (finished / "latency.json").read_bytes()
