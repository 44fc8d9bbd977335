"""Deploy: what is right is written, what is not is told and leaves nothing."""

import json
import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest
from click.testing import CliRunner

from onnxprune.cli.commands import main
from onnxprune.deploy import Row, deploy, deploying, problems, trial
from onnxprune.errors import InvalidModel, InvalidValue, OnnxPruneError, UnknownName
from onnxprune.evaluation import running
from onnxprune.files import move_whole
from onnxprune.graph import save_model, storage
from onnxprune.runtimes import RECORD
from tests.support.deployed import NET
from tests.support.runtimes import write_runtime
from tests.support.wide import wide_net

RIGHT: dict[str, str] = {}
WRONG = {"running": "rows = [row + 0.05 * abs(row).max() for row in rows]"}
NAN = {"running": "rows = [row * float('nan') for row in rows]"}
OTHER_SHAPE = {"running": "rows = [row[:, :3] for row in rows]"}
CRASHING = {"running": "os.kill(os.getpid(), 11)"}
HANGING = {"loading": "time.sleep(100)"}
ABSENT = {"packages": '("no_such_package",)'}


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """Samples of which the model is right for four in five."""
    x = np.random.default_rng(0).standard_normal((20, 3, 8, 8)).astype(np.float32)
    y = onnx.reference.ReferenceEvaluator(NET).run(None, {"x": x})[0].argmax(1)
    y[::5] = (y[::5] + 1) % 4
    np.savez(tmp_path / "samples.npz", x=x, y=y)
    return tmp_path / "samples.npz"


def own(folder: Path, name: str, stages: dict[str, str]) -> str:
    (folder / "own").mkdir(exist_ok=True)
    return str(write_runtime(folder / "own" / f"{name}.py", **stages))


def row_of(record: dict[str, Any]) -> dict[str, Any]:
    (row,) = record["rows"]
    return dict(row)


def test_one_session_of_a_model_is_held_at_a_time(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is compared with is gone when the clock starts its own."""
    started: list[weakref.ref[Any]] = []

    def start(*given: Any, **more: Any) -> Any:
        found = running(*given, **more)
        started.append(weakref.ref(found))
        return found

    def clock(nets: Any, **_: Any) -> list[float]:
        assert [one() for one in started] == [None]
        return [1.0 for _ in nets]

    monkeypatch.setattr(trial, "running", start)
    monkeypatch.setattr(trial, "latencies", clock)
    record = deploy(net, tmp_path / "edge", to=[own(tmp_path, "right", RIGHT)], threads=1)
    assert row_of(record)["latency_ms"] == 1.0


def test_a_model_of_two_files_is_replaced_in_one_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of the earlier one go last, and the file that names them never does."""
    moved: list[list[str]] = []

    def move(made: list[Path], folder: Path) -> None:
        moved.append(sorted(path.name for path in folder.glob("net.onnx*")))
        move_whole(made, folder)

    monkeypatch.setattr(storage, "MESSAGE_LIMIT", 2000)
    monkeypatch.setattr(deploying, "move_whole", move)
    held = []
    for wide in (40, 50):
        save_model(wide_net(wide), tmp_path / "net.onnx")
        record = deploy(tmp_path / "net.onnx", tmp_path / "edge", to=["onnxruntime"], threads=1)
        held.append(sorted(row_of(record)["files"]))
        assert sorted(path.name for path in (tmp_path / "edge").glob("net.onnx*")) == held[-1]
    assert moved == [[], held[0]]
    assert held[0] != held[1]


def test_what_is_right_is_written_with_what_was_measured(
    net: Path, samples: Path, tmp_path: Path
) -> None:
    out = tmp_path / "edge"
    record = deploy(net, out, samples, to=[own(tmp_path, "right", RIGHT)], threads=1)
    row = row_of(record)
    assert sorted(path.name for path in out.iterdir()) == [RECORD, "net.own"]
    assert json.loads((out / RECORD).read_text(encoding="utf-8")) == record
    assert (row["status"], row["reason"], row["files"]) == ("done", "", ["net.own"])
    assert row["size_bytes"] == (out / "net.own").stat().st_size
    assert row["latency_ms"] > 0
    assert row["onnxruntime_ms"] > 0
    assert row["max_error"] < 1e-5
    assert row["accuracy"] == record["accuracy"]
    assert record["accuracy"]["mean"] == pytest.approx(0.8, abs=0.1)
    assert (record["metric"], record["samples"], record["inputs"]) == (
        "top-1",
        20,
        {"x": [1, 3, 8, 8]},
    )
    assert problems(record) == ""


@pytest.mark.parametrize(
    ("stages", "status", "reason"),
    [
        (WRONG, "wrong", r"output 'y' is off by"),
        (NAN, "wrong", r"output 'y' is off by inf"),
        (OTHER_SHAPE, "wrong", r"output 'y' is \[1, 3\], expected \[1, 4\]"),
        (CRASHING, "failed", r"crashed \(SIGSEGV\)"),
        (HANGING, "failed", r"took longer than 6 s"),
        (ABSENT, "missing", r"not installed; install no_such_package"),
    ],
)
def test_what_is_not_right_leaves_nothing(
    net: Path, samples: Path, tmp_path: Path, stages: dict[str, str], status: str, reason: str
) -> None:
    out = tmp_path / "edge"
    names = [own(tmp_path, "bad", stages)]
    limit = 6 if stages is HANGING else 600  # a busy machine starts no process in seconds
    row = row_of(record := deploy(net, out, samples, to=names, threads=1, time_limit=limit))
    assert row["status"] == status
    assert re.search(reason, row["reason"])
    assert "\n" not in row["reason"]
    assert [path.name for path in out.iterdir()] == [RECORD]
    assert problems(record).startswith("not written: bad: ")
    json.loads((out / RECORD).read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_one_that_fails_is_not_the_end_of_the_others(net: Path, tmp_path: Path) -> None:
    stages = {"bad": CRASHING, "absent": ABSENT, "right": RIGHT}
    names = ",".join(own(tmp_path, name, code) for name, code in stages.items())
    out = tmp_path / "edge"
    command = ["deploy", str(net), "--to", names, "-o", str(out), "--threads", "1"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: not written: bad: failed, crashed (SIGSEGV)")
    assert "absent" not in last
    for text in ("absent: not installed", "no samples: inputs were made up", "accuracy was not"):
        assert text in result.stdout
    assert (out / "net.own").is_file()


def test_what_is_not_installed_is_no_error_beside_what_is(net: Path, tmp_path: Path) -> None:
    stages = {"absent": ABSENT, "right": RIGHT}
    names = ",".join(own(tmp_path, name, code) for name, code in stages.items())
    command = ["deploy", str(net), "--to", names, "-o", str(tmp_path / "edge"), "--json"]
    result = CliRunner().invoke(main, [*command, "-q"])
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    assert [row["status"] for row in rows] == ["missing", "done"]


def test_the_folder_of_the_model_is_refused(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything runs."""
    before = net.read_bytes()
    monkeypatch.setattr(deploying, "_tried", lambda *_: pytest.fail("ran"))
    with pytest.raises(InvalidValue, match="holds the model itself; name another folder"):
        deploy(net, tmp_path)
    assert net.read_bytes() == before


def test_a_python_of_a_runtime_that_is_not_asked_for_is_refused(net: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="python: runtime 'mnn'"):
        deploy(net, tmp_path / "edge", python={"mnn": "python3"})
    with pytest.raises(UnknownName, match="runtime 'onnxrutnime': unknown"):
        deploy(net, tmp_path / "edge", to=["onnxrutnime"])


def test_files_of_an_earlier_run_do_not_outlive_a_wrong_one(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "edge"
    row = row_of(deploy(net, out, to=["onnxruntime"], threads=1))
    assert (row["status"], row["accuracy"]) == ("done", None)
    assert (out / "net.onnx").is_file()
    wrong = Row("onnxruntime", "", "wrong", "output 'y' is off")
    monkeypatch.setattr(deploying, "_tried", lambda *_: wrong)
    record = deploy(net, out, to=["onnxruntime"], threads=1)
    assert row_of(record)["status"] == "wrong"
    assert not (out / "net.onnx").exists()


def test_a_file_of_ones_own_runtime_does_not_outlive_a_wrong_one(
    net: Path, samples: Path, tmp_path: Path
) -> None:
    """What its files are called is known from what it writes."""
    out = tmp_path / "edge"
    deploy(net, out, samples, to=[own(tmp_path, "mine", RIGHT)], threads=1)
    assert (out / "net.own").is_file()
    record = deploy(net, out, samples, to=[own(tmp_path, "mine", WRONG)], threads=1)
    assert row_of(record)["status"] == "wrong"
    assert [path.name for path in out.iterdir()] == [RECORD]


def test_ones_own_runtime_does_not_write_over_the_model(net: Path, tmp_path: Path) -> None:
    before = net.read_bytes()
    code = {"converting": "shutil.copyfile(model, folder / 'net.onnx'); return folder / 'net.onnx'"}
    with pytest.raises(InvalidValue, match="holds the model itself; name another folder"):
        deploy(net, tmp_path, to=[own(tmp_path, "mine", code)], threads=1)
    assert net.read_bytes() == before


@pytest.mark.parametrize("part", ["model", "original"])
def test_a_model_that_onnxruntime_refuses_is_named_by_its_file(
    net: Path, tmp_path: Path, part: str
) -> None:
    unknown = onnx.load(net)
    unknown.graph.node[0].op_type, unknown.graph.node[0].domain = "Mine", "some.domain"
    unknown.opset_import.append(onnx.helper.make_opsetid("some.domain", 1))
    onnx.save(unknown, bad := tmp_path / "its own.onnx")
    given = {"model": net, "original": net, part: bad}
    out = tmp_path / "edge"
    with pytest.raises(InvalidModel) as said:
        deploy(given["model"], out, original=given["original"], threads=1)
    assert re.fullmatch(
        rf"{re.escape(str(bad))}: onnxruntime refuses it: .*some\.domain:Mine.* not a registered "
        r"function/op; .* export the model with operators that it knows",
        str(said.value),
    )
    assert not out.exists()


def test_a_mistake_leaves_no_folder(net: Path, samples: Path, tmp_path: Path) -> None:
    for asked in ({"calibrate": tmp_path / "none"}, {"to": ("file.py",)}):
        with pytest.raises(OnnxPruneError):
            deploy(net, tmp_path / "edge", samples, int8="onnxruntime", threads=1, **asked)
        assert not (tmp_path / "edge").exists()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_killed_command_leaves_no_figures_of_another_file(
    net: Path, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Whether it was killed before the file of an earlier day was replaced, or after."""
    out, to = tmp_path / "edge", [own(tmp_path, "right", RIGHT)]
    deploy(net, out, samples, to=to, threads=1)

    def move(made: list[Path], folder: Path) -> None:
        if when == "after":
            move_whole(made, folder)
        raise Killed

    monkeypatch.setattr(deploying, "move_whole", move)
    with pytest.raises(Killed):
        deploy(net, out, to=to, threads=1)
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    assert record["rows"] == [] and record["samples"] == 0
    assert (out / "net.own").is_file()


@pytest.mark.parametrize("status", ["failed", "missing"])
def test_a_runtime_that_fails_leaves_what_was_there(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """It may be the disk that is full; the record does not name the file any more."""
    out = tmp_path / "edge"
    deploy(net, out, to=["onnxruntime"], threads=1)
    before = (out / "net.onnx").read_bytes()
    failed = Row("onnxruntime", "", status, "no space left on device")
    monkeypatch.setattr(deploying, "_tried", lambda *_: failed)
    record = deploy(net, out, to=["onnxruntime"], threads=1)
    assert row_of(record)["files"] == []
    assert (out / "net.onnx").read_bytes() == before


def test_int8_that_no_runtime_there_computes_is_a_problem() -> None:
    def row(runtime: str, variant: str, status: str, reason: str = "") -> dict[str, str]:
        return {"runtime": runtime, "variant": variant, "status": status, "reason": reason}

    rows = [row("openvino", "float", "missing", "a"), row("openvino", "INT8", "missing", "b")]
    rows += [row("mnn", "float", "done"), row("mnn", "INT8", "missing", "c")]
    assert problems({"rows": rows}) == "not written: openvino, INT8: b; mnn, INT8: c"
    done = [*rows, row("onnxruntime", "INT8", "done")]
    assert problems({"rows": done}) == ""
