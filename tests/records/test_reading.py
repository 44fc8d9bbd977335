"""Whatever a record holds, it is read as its schema says, or refused in a line that says where."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

import onnxprune
from onnxprune.errors import RunDirectoryError
from onnxprune.records import Kind, parse_json, parse_record, read_record, reading
from tests.support.small_net import Small

FILES: dict[str, Kind] = {
    "config.json": "config",
    "report.json": "report",
    "about.json": "about",
    "evidence.json": "evidence",
}


@pytest.fixture(scope="module")
def run(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records") / "run"
    onnxprune.prune(small.path, small.data, rate=0.3, threads=1, run_dir=folder)
    return folder


def refused(text: str, kind: Kind = "report") -> str:
    with pytest.raises(RunDirectoryError) as caught:
        parse_record(text, kind, "file", RunDirectoryError)
    return str(caught.value)


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a document; of a list the first alone."""
    if isinstance(content, dict):
        return [one for key in content for one in places(content[key], (*path, key))]
    if isinstance(content, list) and content:
        return places(content[0], (*path, 0))
    return [path]


def with_value(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = json.loads(json.dumps(content))
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


@pytest.mark.parametrize("name", FILES)
def test_what_a_run_writes_is_read(run: Path, name: str) -> None:
    content = json.loads((run / name).read_text())
    assert read_record(run / name, FILES[name], RunDirectoryError) == content


def test_a_journal_holds_states(run: Path) -> None:
    for line in (run / "journal.jsonl").read_text().splitlines():
        for kind in ("step", "state"):
            assert parse_record(line, kind, "file", RunDirectoryError) == json.loads(line)


READ = {
    "report.json": ("before", "after", "rate", "layers", "latency", "samples", "held_out"),
    "about.json": ("model", "machine", "network", "versions", "command"),
    "evidence.json": ("layers", "interval", "classes", "moves"),
}
UNREAD = {"kind", "outputs", "lost", "gained"}


@pytest.mark.parametrize("name", READ)
def test_every_field_that_is_read_is_of_its_kind(run: Path, name: str) -> None:
    content = json.loads((run / name).read_text())
    tried = 0
    for path in places({key: content[key] for key in READ[name]}):
        if UNREAD & set(path):
            continue
        for wrong in ({"a": {"b": 1}}, [[[[1]]]]):
            with pytest.raises(RunDirectoryError):
                changed = with_value(content, path, wrong)
                parse_record(json.dumps(changed), FILES[name], name, RunDirectoryError)
                pytest.fail(f"{name}: {path} is read as {wrong}")
            tried += 1
    assert tried > 20


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rate": "0.5"}, "file: rate is a text; expected a number"),
        ({"rate": 1.5}, "file: rate: expected a number <= 1.0"),
        ({"samples": -1}, "file: samples: expected a whole number >= 0"),
        ({"samples": 1e400}, "file: cannot be read as JSON (Infinity is no number of JSON)"),
        ({"seconds": float("nan")}, "file: cannot be read as JSON (NaN is no number of JSON)"),
        ({"before": None}, "file: before is null; expected an object"),
        ({"classes": [3]}, "file: classes[0] is a whole number; expected a text"),
    ],
)
def test_a_line_names_the_field_and_what_is_expected(
    run: Path, change: dict[str, Any], says: str
) -> None:
    content = json.loads((run / "report.json").read_text())
    assert refused(json.dumps(content | change)) == says


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Expecting value"),
        ("[" * 100_000, "nested too deep"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ('{"a": 1e999}', "too large for a number"),
        ("9" * 5000, "4300 digits"),
    ],
)
def test_json_that_is_none_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_json(text)


def test_parts_that_do_not_go_together_are_refused(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    report["after"]["accuracy"]["per_class"].append(0.5)
    assert "per_class of before and after are not as many" in refused(json.dumps(report))
    about = json.loads((run / "about.json").read_text())
    about["network"]["layers"][0]["channels"] = [[0, 2**24]]
    assert "are none of the" in refused(json.dumps(about), "about")
    step = json.loads((run / "journal.jsonl").read_text().splitlines()[-1])
    assert "beyond the" in refused(json.dumps(step | {"dead": [step["channels"]]}), "state")
    step["accuracy"]["correct"][0] = step["accuracy"]["total"][0] + 1
    assert "accuracy: more are correct than there are" in refused(json.dumps(step), "state")


def test_a_picture_is_one_and_a_colour_is_one(run: Path) -> None:
    shown = {"name": "a", "maps": [], "changed": 0.1, "picture": "https://evil/x.png"}
    assert "picture: expected a text matching" in refused(
        json.dumps({"shown": [shown]}), "evidence"
    )
    about = json.loads((run / "about.json").read_text())
    about["network"]["groups"][0]["colour"] = "red;background:url(//evil)"
    assert "colour: expected a text matching" in refused(json.dumps(about), "about")


@pytest.mark.parametrize("kind", ["folder", "pipe", "nothing", "latin-1", "large"])
def test_what_is_no_record_is_not_read(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "nothing":
        path.write_bytes(b"{\xe9}")
    if kind == "large":
        monkeypatch.setattr(reading, "LARGEST", 2)
        monkeypatch.setattr(reading.read_bytes, "__defaults__", (2,))
        monkeypatch.setattr(reading.read_text, "__defaults__", (2,))
    says = {
        **dict.fromkeys(("folder", "pipe"), "is no file"),
        **{"nothing": "No such file", "latin-1": "no text in UTF-8", "large": "expected 2 at most"},
    }
    with pytest.raises(RunDirectoryError, match=says[kind]):
        read_record(path, "report", RunDirectoryError)
