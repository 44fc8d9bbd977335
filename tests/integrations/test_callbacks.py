"""What a tracker is told is what the journal of the same search holds."""

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import onnxprune
from onnxprune.errors import InvalidValue, MissingPackage
from onnxprune.integrations import callbacks
from onnxprune.integrations.packages import tool
from tests.support.runs import FREE, journal, samples
from tests.support.small_net import Small

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "track-a-search.md"
BLOCK, FULL, LAST = 32768, 1, 4
NAMES = ("rate", "params", "macs", "filters", "mean", "harmonic")


def snippet(package: str) -> str:
    """The example of the page that uses a tracker, on the files that the tests have."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if f"callbacks.{package}(" in block]
    return found.replace('"reference/"', '"reference.npz", run_dir="run", threads=1')


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Small) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(small.proto.SerializeToString())
    (tmp_path / "reference.npz").write_bytes(small.data.read_bytes())
    return tmp_path


def expected(folder: Path) -> dict[str, list[float]]:
    """The figures of every step, as the journal holds them."""
    lines = [line for line in journal(folder / "run") if not line["stopped"]]
    return {name: [line[name] for line in lines] for name in NAMES[:4]}


class Writer:
    def __init__(self) -> None:
        self.logged: dict[str, list[tuple[int, float]]] = {}
        self.flushed = 0

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.logged.setdefault(name, []).append((step, value))

    def flush(self) -> None:
        self.flushed += 1


def test_every_step_is_logged_once(folder: Path, small: Small) -> None:
    writer = Writer()
    onnxprune.prune(
        small.proto,
        samples(small),
        rate=0.5,
        threads=1,
        run_dir=folder / "run",
        on_state=callbacks.tensorboard(writer),
    )
    wanted = expected(folder)
    assert writer.logged.keys() == {f"prune/{name}" for name in NAMES}
    for name, values in wanted.items():
        assert writer.logged[f"prune/{name}"] == list(enumerate(values))
    assert writer.flushed == len(wanted["rate"]) > 1


def test_without_samples_there_is_no_accuracy(small: Small) -> None:
    writer = Writer()
    onnxprune.prune(small.proto, rate=0.5, on_state=callbacks.tensorboard(writer), **FREE)
    assert writer.logged.keys() == {f"prune/{name}" for name in NAMES[:4]}


def test_what_is_not_known_is_not_logged(monkeypatch: pytest.MonkeyPatch, small: Small) -> None:
    writer = Writer()
    unknown = {"rate": 0.5, "params": 9, "macs": None}
    monkeypatch.setattr(callbacks, "summary", lambda task, state: dict(unknown))
    onnxprune.prune(small.proto, rate=0.5, on_state=callbacks.tensorboard(writer), **FREE)
    assert writer.logged.keys() == {"prune/rate", "prune/params"}


def test_a_missing_tracker_names_its_extra() -> None:
    with pytest.raises(MissingPackage, match=r'pip install "onnxprune\[nothing\]"'):
        tool("onnxprune.nothing", "nothing")


# With the trackers themselves, each with a store in a folder


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_shows_the_steps(folder: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    exec(snippet("tensorboard"), {})
    read = EventAccumulator("logs")
    read.Reload()
    for name, values in expected(folder).items():
        logged = [(event.step, event.value) for event in read.Scalars(f"prune/{name}")]
        assert logged == [(step, pytest.approx(value)) for step, value in enumerate(values)]


@pytest.mark.filterwarnings("ignore")
def test_mlflow_holds_the_steps(folder: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'store.db'}")
    exec(snippet("mlflow"), {})
    client = mlflow.MlflowClient()
    (run,) = mlflow.search_runs(output_format="list")
    for name, values in expected(folder).items():
        history = client.get_metric_history(run.info.run_id, f"prune/{name}")
        assert [one.value for one in sorted(history, key=lambda one: one.step)] == values
    assert [one.path for one in client.list_artifacts(run.info.run_id)] == ["report.json"]


@pytest.mark.filterwarnings("ignore")
def test_wandb_holds_the_steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    for name, value in {"MODE": "offline", "DIR": str(folder), "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    with pytest.raises(InvalidValue, match=r"wandb\.init"):
        callbacks.wandb()
    exec(snippet("wandb"), {})
    wandb.teardown()  # its service writes the file, and may still be at it when a run has ended
    (file,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    logged = list(wandb_history(file))
    for name, values in expected(folder).items():
        assert [line[f"prune/{name}"] for line in logged] == values
    assert [line["prune/step"] for line in logged] == list(range(len(logged)))
    assert wandb.run is None


def wandb_history(file: Path) -> Iterator[dict[str, Any]]:
    """What was logged, as an offline run of Weights & Biases stores it: protobufs in a LevelDB log.

    Source: LevelDB's log format; 7 bytes stand before the first record.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if at % BLOCK > BLOCK - 7:
            at += -at % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (FULL, LAST):
            record = Record.FromString(whole)
            whole = b""
            items = record.history.item
            if items:
                yield {
                    one.key or ".".join(one.nested_key): json.loads(one.value_json) for one in items
                }
