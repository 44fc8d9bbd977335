"""Killed runs end as if nothing had happened, and a run directory is held to its run."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.data import load_data
from onnxprune.errors import NOTICE, DataError, OutputError, RunDirectoryError
from onnxprune.run import Result
from onnxprune.samples import fashion_mnist
from onnxprune.search.journal import cores
from onnxprune.search.limits import Limits
from onnxprune.search.lines import from_line, to_line
from onnxprune.search.settings import Settings
from onnxprune.search.task import State
from tests.support.models import run
from tests.support.runs import FREE, journal
from tests.support.small_net import Small

FASHION = Settings.of(per_class=2, rate=0.2, threads=1, compensate="bias", round_to=8)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on real images, some of each class: from it, killed runs are made."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    onnxprune.prune(fashion_mnist.MODEL, fashion_mnist.REFERENCE, settings=FASHION, run_dir=folder)
    return folder


def killed(finished: Path, folder: Path, steps: int, rest: bytes = b"") -> Path:
    """A run directory as a kill leaves it after so many steps, in the middle of a line."""
    folder.mkdir()
    (folder / "config.json").write_bytes((finished / "config.json").read_bytes())
    lines = (finished / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:steps]) + rest)
    return folder


def resume(folder: Path, settings: Settings = FASHION) -> Result:
    return onnxprune.prune(
        fashion_mnist.MODEL,
        fashion_mnist.REFERENCE,
        settings=settings,
        run_dir=folder,
        resume=True,
    )


@pytest.mark.parametrize(("steps", "rest"), [(0, b""), (2, b""), (3, b'{"rate": 0.1, "par')])
def test_a_killed_run_ends_as_if_nothing_had_happened(
    finished: Path, tmp_path: Path, steps: int, rest: bytes
) -> None:
    folder = killed(finished, tmp_path / "run", steps, rest)
    result = resume(folder)
    assert len(journal(finished)) > 4
    for name in ("plan.json", "pruned.onnx", "config.json"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()
    assert journal(folder) == journal(finished)
    assert (
        result.report["after"]["accuracy"]
        == (json.loads((finished / "report.json").read_text())["after"]["accuracy"])
    )


def test_a_run_goes_on_with_other_threads_and_cores(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(NOTICE)
    folder = killed(finished, tmp_path / "run", 2)
    config = folder / "config.json"
    held = json.loads(config.read_text())
    config.write_text(json.dumps({**held, "computed": {**held["computed"], "cores": 300}}))
    resume(folder, replace(FASHION, threads=2))
    for name in ("plan.json", "pruned.onnx"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()
    assert journal(folder) == journal(finished)
    said = rf"made with threads 1 \(now 2\), cores 300 \(now {cores()}\); the plan is the same"
    assert re.search(said, caplog.text)


def test_measured_times_hang_on_threads(finished: Path, tmp_path: Path) -> None:
    folder = killed(finished, tmp_path / "run", 2)
    (folder / "latency.json").write_text('{"times": {}, "constant": 1.0, "error": 0.0}')
    with pytest.raises(RunDirectoryError, match=r"made with threads 1 \(now 2\); resume with"):
        resume(folder, replace(FASHION, threads=2))


def test_a_finished_run_resumed_does_nothing_more(finished: Path) -> None:
    before = (finished / "journal.jsonl").read_bytes()
    plan = (finished / "plan.json").read_bytes()
    onnxprune.prune(
        fashion_mnist.MODEL,
        fashion_mnist.REFERENCE,
        settings=FASHION,
        run_dir=finished,
        resume=True,
    )
    assert (finished / "journal.jsonl").read_bytes() == before
    assert (finished / "plan.json").read_bytes() == plan


def test_real_images_are_classified_as_well_as_promised(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    images = load_data(fashion_mnist.REFERENCE, shape=(1, 28, 28), limit=2)
    right = run(onnx.load(finished / "pruned.onnx"), images.x)[0].argmax(1) == images.y
    assert report["after"]["accuracy"]["mean"] == pytest.approx(right.mean())
    assert report["samples"] == 20
    assert 0.2 <= report["rate"] < 0.21


def test_a_run_is_not_overwritten(finished: Path) -> None:
    with pytest.raises(RunDirectoryError, match="holds a run already; give --resume"):
        onnxprune.prune(
            fashion_mnist.MODEL, fashion_mnist.REFERENCE, settings=FASHION, run_dir=finished
        )


def test_another_run_is_not_continued(finished: Path, tmp_path: Path) -> None:
    folder = killed(finished, tmp_path / "run", 2)
    other = replace(FASHION, seed=1, limits=Limits(min_channels=2, round_to=8))
    with pytest.raises(
        RunDirectoryError,
        match=r"made with min_channels 1 \(now 2\), seed 0 ",
    ):
        onnxprune.prune(
            fashion_mnist.MODEL,
            fashion_mnist.REFERENCE,
            settings=other,
            run_dir=folder,
            resume=True,
        )
    with pytest.raises(RunDirectoryError, match="made with other samples; resume"):
        onnxprune.prune(
            fashion_mnist.MODEL, fashion_mnist.TEST, settings=FASHION, run_dir=folder, resume=True
        )


def test_a_journal_of_another_version_is_named(finished: Path, tmp_path: Path) -> None:
    folder = killed(finished, tmp_path / "run", 2)
    path = folder / "journal.jsonl"
    path.write_text(path.read_text("utf-8").replace('"corrected"', '"altered"'), "utf-8")
    with pytest.raises(
        RunDirectoryError, match=r"line 1: has no 'corrected'; it was edited, or another version of"
    ):
        resume(folder)


@pytest.mark.parametrize("before", [None, "notes.txt"])
def test_a_run_that_cannot_begin_leaves_nothing_behind(
    small: Small, tmp_path: Path, before: str | None
) -> None:
    folder = tmp_path / "run"
    if before is not None:
        folder.mkdir()
        (folder / before).write_text("mine", "utf-8")
    says, error = "label 3, expected 0 to 2", DataError
    if before is not None:
        says, error = "holds notes.txt, and no run", RunDirectoryError
    with pytest.raises(error, match=says):
        onnxprune.prune(small.proto, (small.x, small.y + 1), rate=0.3, threads=1, run_dir=folder)
    assert folder.exists() == (before is not None)
    assert before is None or [path.name for path in folder.iterdir()] == [before]


@pytest.mark.parametrize(
    ("line", "says"), [(b"not json", "as JSON"), (b'{"\xff": 1}', r"\(no text in UTF-8: 'utf-8'")]
)
def test_a_broken_journal_is_named(finished: Path, tmp_path: Path, line: bytes, says: str) -> None:
    folder = killed(finished, tmp_path / "run", 1, line + b"\n")
    with pytest.raises(RunDirectoryError, match=rf"journal\.jsonl: line 2: cannot be read {says}"):
        resume(folder)


def test_broken_settings_are_named(finished: Path, tmp_path: Path) -> None:
    folder = killed(finished, tmp_path / "run", 1)
    (folder / "config.json").write_text("{")
    with pytest.raises(RunDirectoryError, match=r"config\.json: cannot be read"):
        resume(folder)


def test_a_journal_that_cannot_be_written_is_named(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, line: bytes) -> int:
        if b"tried" in bytes(line):
            raise OSError(28, "No space left on device")
        return write(handle, line)

    write = os.write
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match=r"journal\.jsonl: cannot be written \(No space left"):
        onnxprune.prune(small.proto, **FREE, rate=0.3, run_dir=tmp_path / "run")


def test_resuming_needs_a_directory(small: Small) -> None:
    with pytest.raises(RunDirectoryError, match="give its --run-dir"):
        onnxprune.prune(small.proto, **FREE, rate=0.3, resume=True)


def test_a_run_directory_must_be_a_folder(small: Small) -> None:
    with pytest.raises(OutputError, match="cannot be created"):
        onnxprune.prune(small.proto, **FREE, rate=0.3, run_dir=small.path)


def test_a_run_without_its_config_is_not_continued(small: Small, tmp_path: Path) -> None:
    run = {**FREE, "rate": 0.2, "run_dir": tmp_path / "run"}
    onnxprune.prune(small.proto, **run)
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(RunDirectoryError, match=r"config\.json: cannot be read"):
        onnxprune.prune(small.proto, **run, resume=True, round_to=2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda held: held["settings"].update(speed=3), "another version of onnxprune, .*speed"),
        (lambda held: held["settings"].pop("seed"), "another version of onnxprune, .*seed"),
        (lambda held: held.update(gpu_sha256="0"), "another version of onnxprune, .*gpu_sha256"),
        (lambda held: held.update(model_sha256="0"), "made with another model; resume"),
        (lambda held: held["settings"].update(seed=3), r"made with seed 3 \(now 0\); resume"),
        (lambda held: held.pop("settings"), "config.json: has no 'settings'"),
        (lambda held: held.update(settings=3), "settings is a whole number; expected an object"),
        (
            lambda held: held["computed"].update(onnxruntime="1.0"),
            r"made with onnxruntime '1.0' \(n",
        ),
        (lambda held: held["computed"].pop("numpy"), "made with numpy None "),
        (lambda held: held.pop("computed"), "another version of onnxprune, .*computed"),
    ],
)
def test_what_differs_in_a_run_is_named(
    change: Callable[[Any], Any], says: str, small: Small, tmp_path: Path
) -> None:
    run = {**FREE, "rate": 0.2, "run_dir": tmp_path / "run"}
    onnxprune.prune(small.proto, **run)
    config = tmp_path / "run" / "config.json"
    held = json.loads(config.read_text())
    change(held)
    config.write_text(json.dumps(held))
    with pytest.raises(RunDirectoryError, match=says):
        onnxprune.prune(small.proto, **run, resume=True)


def test_two_do_not_use_one_run_directory(small: Small, tmp_path: Path) -> None:
    run = {**FREE, "rate": 0.2, "run_dir": tmp_path / "run"}

    def another(*_: Any) -> None:
        with pytest.raises(RunDirectoryError, match="another process is using it; wait"):
            onnxprune.prune(small.proto, **run, resume=True)

    onnxprune.prune(small.proto, **run, on_state=another)
    onnxprune.prune(small.proto, **run, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_somebody_else_is_not_touched(
    small: Small, tmp_path: Path, resume: bool
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("config.json", "plan.json"):
        (folder / name).write_text('{"settings": "mine"}')
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    with pytest.raises(RunDirectoryError, match=r"holds config\.json and 1 more, and no run"):
        onnxprune.prune(small.proto, **FREE, rate=0.2, run_dir=folder, resume=resume)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert after == before


def test_a_run_whose_journal_is_gone_is_not_written_over(small: Small, tmp_path: Path) -> None:
    run = {**FREE, "rate": 0.2, "run_dir": tmp_path / "run"}
    onnxprune.prune(small.proto, **run)
    (tmp_path / "run" / "journal.jsonl").unlink()
    with pytest.raises(RunDirectoryError, match="holds a run already"):
        onnxprune.prune(small.proto, **run)


def test_a_run_that_was_killed_before_it_began_begins(small: Small, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".onnxprune-0123456789abcdef").write_text("half")
    onnxprune.prune(small.proto, **FREE, rate=0.2, run_dir=tmp_path / "run", resume=True)
    assert not list((tmp_path / "run").glob(".*"))


def test_an_interrupted_run_hands_out_what_it_reached(small: Small) -> None:
    states = []

    def stop(_: Any, state: Any) -> None:
        states.append(state)
        if len(states) == 2:
            raise KeyboardInterrupt

    with pytest.raises(onnxprune.Interrupted) as stopped:
        onnxprune.prune(small.proto, (small.x, small.y), rate=0.6, threads=1, on_state=stop)
    best = stopped.value.best()
    assert best is not None
    assert 0 < len(best.plan) < 14
    assert run(best.model, small.x)[0].shape == (24, 3)
    with pytest.raises(onnxprune.Interrupted) as stopped:
        onnxprune.prune(
            small.proto,
            **FREE,
            rate=0.6,
            on_state=lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
        )
    assert stopped.value.best() is None


def test_a_line_gives_back_the_state_that_it_was_made_of() -> None:
    dead = np.array([False, True, True, False])
    whole = State(dead, 0.25, None, "floor", True, 0.5, (1, 3), (2,), 0.1, 2, -3, 1)
    bare = State(dead, 0.1, None)
    for state in (whole, bare):
        assert from_line(json.loads(json.dumps(to_line(state)))) == state
