"""A run is done again from its directory, and what came out otherwise is named."""

import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import onnxprune
from onnxprune.cli.commands import main
from onnxprune.graph import load_model, save_model
from onnxprune.reproduction import Recorded
from tests.support.small_net import Small


@pytest.fixture(scope="module")
def finished(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    onnxprune.prune(str(small.path), str(small.data), run_dir=folder, rate=0.4, trust_baseline=True)
    return folder


@pytest.fixture
def run_dir(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def again(run_dir: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["reproduce", str(run_dir), *arguments])


def changed(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


def test_the_same_run_ends_in_the_same(run_dir: Path) -> None:
    before = {path.name: path.read_bytes() for path in run_dir.iterdir()}
    found = again(run_dir, "--json", "-q")
    assert found.exit_code == 0
    assert json.loads(found.stdout)["equal"]
    assert {path.name: path.read_bytes() for path in run_dir.iterdir()} == before


def test_another_result_is_named_with_its_first_step_and_what_is_around_it(run_dir: Path) -> None:
    journal = run_dir / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text("utf-8").splitlines()]
    lines[2]["dead"] = lines[2]["dead"][1:]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    changed(run_dir / "plan.json", lambda plan: plan.clear())
    changed(run_dir / "about.json", lambda about: about["versions"].update(numpy="1.0"))
    found = again(run_dir)
    assert found.exit_code == 1
    assert "error: not equal: plan; first at step 2: what is removed; not as then" in found.stderr
    assert f"numpy {np.__version__} (then 1.0)" in found.stderr


def test_another_accuracy_is_named(run_dir: Path) -> None:
    changed(run_dir / "report.json", lambda one: one["after"]["accuracy"].update(mean=0.123))
    found = again(run_dir)
    assert found.exit_code == 1
    assert "error: not equal: accuracy" in found.stderr


def test_other_bytes_are_named(run_dir: Path) -> None:
    with (run_dir / "pruned.onnx").open("ab") as file:
        file.write(b"\0")
    found = again(run_dir)
    assert found.exit_code == 1
    assert "error: not equal: ONNX bytes" in found.stderr


def test_the_model_of_a_run_is_not_held_while_the_run_is_done_again(run_dir: Path) -> None:
    with (run_dir / "pruned.onnx").open("wb") as file:
        file.truncate(2**26)
    tracemalloc.start()
    held = Recorded.read(run_dir)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(held.model_sha256) == 64
    assert most < 2**22


def test_another_model_or_other_samples_are_refused(
    run_dir: Path, small: Small, tmp_path: Path
) -> None:
    other = str(tmp_path / "other.onnx")
    model = load_model(small.path)
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    save_model(model, other)
    found = again(run_dir, "--model", other)
    assert found.exit_code == 1
    assert f"error: {other}: another model than that of {run_dir} (sha256 " in found.stderr
    changed(run_dir / "config.json", lambda config: config.update(data_sha256="0" * 64))
    found = again(run_dir)
    assert f"error: {small.data}: other samples than that of {run_dir} (sha256 " in found.stderr
    assert "then 000000000000)" in found.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: (run / "report.json").unlink(), "is not finished (no report.json); prune --r"),
        (lambda run: (run / "config.json").unlink(), "holds no run (no config.json)"),
        (lambda run: (run / "config.json").write_text("["), "cannot be read"),
        (
            lambda run: changed(run / "about.json", lambda a: a["model"].update(path="gone.onnx")),
            "gone.onnx: the model of ",
        ),
        (
            lambda run: changed(run / "about.json", lambda a: a["model"].update(path=None)),
            "its model came from no file; give --model",
        ),
    ],
    ids=["unfinished", "no run", "broken", "moved", "from memory"],
)
def test_what_cannot_be_done_again_says_why(
    change: Callable[[Path], None], said: str, run_dir: Path
) -> None:
    change(run_dir)
    found = again(run_dir)
    assert found.exit_code == 1
    assert said in found.stderr


METRIC = """
from pathlib import Path

Path("has run").touch()


def hits(outputs, targets):
    return float((outputs.argmax(1) == targets).mean())
"""


def test_code_that_a_run_names_is_run_only_if_it_is_trusted(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run directory may come from anybody."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(METRIC)
    how: dict[str, Any] = {"rate": 0.3, "control": "one-shot", "threads": 1, "device": "cpu"}
    run = tmp_path / "run"
    onnxprune.prune(str(small.path), str(small.data), run_dir=run, metric="mine.py:hits", **how)
    Path("has run").unlink()
    found = again(run)
    assert found.exit_code == 1
    assert "run: the run used code, mine.py:hits; look at it, and give --trust" in found.stderr
    changed(run / "config.json", lambda held: held["settings"].update(metric="auto"))
    changed(run / "about.json", lambda about: about.update(data="mine.py:hits"))
    assert "code, mine.py:hits" in again(run).stderr
    changed(run / "config.json", lambda held: held["settings"].update(latency_on="mine.py"))
    assert "code, mine.py; look" in again(run).stderr
    assert not Path("has run").exists()


def test_trusted_code_is_run(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(METRIC)
    how: dict[str, Any] = {"rate": 0.3, "control": "one-shot", "threads": 1, "device": "cpu"}
    run = tmp_path / "run"
    onnxprune.prune(str(small.path), str(small.data), run_dir=run, metric="mine.py:hits", **how)
    assert again(run, "--trust").exit_code == 0
