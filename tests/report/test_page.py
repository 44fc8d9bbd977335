"""The page of a run says what its files say, stands alone, and survives a run that does not end."""

import json
import re
import tomllib
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import onnxprune
from onnxprune.cli.tables import (
    SHOWN,
    before_after_table,
    class_table,
    group_table,
    pinned_table,
    step_line,
)
from onnxprune.errors import OutputError, RunDirectoryError
from onnxprune.report.figures import STOPPED, percent, rows
from onnxprune.report.page import DOWNLOADS, write_page
from onnxprune.report.plots import write_curve_plot
from onnxprune.report.rendering import as_json
from onnxprune.report.side_by_side import write_comparison
from tests.support.small_net import Small

SIDE: dict[str, Any] = {
    "params": 1_234_567,
    "macs": 98_765_432,
    "filters": 640,
    "size_bytes": 5_000_000,
    "latency_ms": 2.5,
    "accuracy": {"mean": 0.9, "harmonic": 0.875, "per_class": [0.95, 0.85, None]},
}
AFTER: dict[str, Any] = SIDE | {
    "params": 617_284,
    "latency_ms": 2.0,
    "accuracy": {"mean": 0.88, "harmonic": 0.8, "per_class": [0.9, 0.86, None]},
}
LAYER = {"filters": 8, "removed": 2}


class Page(HTMLParser):
    """What a browser makes of a page: its text, and whether tags are closed in order."""

    VOID = ("meta", "br", "path", "use", "img", "input", "circle")
    INLINE = ("i", "code", "span", "b")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.mistakes: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.data: dict[str, Any] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [v or "" for k, v in attrs if k in ("src", "href")]
        self.tags.add(tag)
        if tag not in self.INLINE:
            self.words.append(" ")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [v or "" for k, v in attrs if k in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.mistakes.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script" and data.lstrip().startswith("{"):
            self.data = json.loads(data)
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


@pytest.fixture(scope="module")
def finished(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "run"
    onnxprune.prune(small.path, small.data, rate=0.5, max_drop=0.9, threads=1, run_dir=folder)
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "a <b> & c"
    folder.mkdir()
    for name in ("config.json", "journal.jsonl", "report.json"):
        (folder / name).write_bytes((finished / name).read_bytes())
    return folder


def page(folder: Path) -> Page:
    text = write_page(folder).read_text("utf-8")
    found = Page(text)
    assert found.mistakes == []
    assert found.open == []
    outside = [link for link in found.links if not link.startswith(("#", "data:image/png"))]
    assert set(outside) <= set(DOWNLOADS), "only the files beside the page"
    outside = re.findall(r"url\((?!#)|https?://(?!www\.w3\.org/)", text)
    assert outside == [], "the page must stand alone"
    return found


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_page_tells_what_the_report_holds(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    found = page(finished)
    for side in ("before", "after"):
        for figure in ("params", "macs", "filters"):
            assert f"{report[side][figure]:,}" in found.text
        assert percent(report[side]["accuracy"]["harmonic"]) in found.text
    assert report["stopped_by"], "a run with an end that has a name"
    names = ", ".join(report["stopped_by"]).replace("_", "-")
    assert f"Stopped: {STOPPED[report['stopped']]} ({names})." in found.text
    for layer in report["layers"]:
        width = layer["filters"] - layer["removed"]
        assert f"{layer['title']} {layer['filters']} \u2192 {width}" in found.text
    assert "Class accuracies" in found.text
    assert "max drop 0.9" in found.text
    assert "control accuracy-aware" in found.text
    assert "24 reference samples" in found.text
    steps = (finished / "journal.jsonl").read_text().count("\n")
    assert f"All {steps} journalled steps" in found.text


def test_a_page_of_numbers_is_separated_and_signed(copied: Path) -> None:
    edit(copied / "report.json", before=SIDE, after=AFTER, classes=["cat", "<dog>", "none"])
    found = page(copied)
    assert "Parameters 1,234,567 617,284 \u221250.0 %" in found.text
    assert "Latency 2.5 ms 2 ms \u221220.0 %" in found.text
    assert "File size 5 MB 5 MB +0.0 %" in found.text
    assert "Harmonic mean 87.5 % 80.0 % \u22127.5 points" in found.text
    assert "cat 95.0 % 90.0 %" in found.text
    assert "<dog> 85.0 % 86.0 %" in found.text  # as text: the parser has undone the escaping
    assert "none" not in found.text.split("Class accuracies")[1].split("Removed filters")[0]
    assert "a <b> & c" in found.text


def test_samples_that_a_correction_has_not_seen_have_a_row_of_their_own(copied: Path) -> None:
    edit(copied / "report.json", before=SIDE, after=AFTER, held_out=None)
    assert "eld out" not in page(copied).text
    edit(copied / "report.json", held_out=SIDE["accuracy"])
    found = page(copied)
    assert "Harmonic mean, held out 87.5 % 87.5 % +0.0 points" in found.text
    assert "corrected on the other two" in found.text


def test_a_running_run_shows_its_steps(copied: Path) -> None:
    (copied / "report.json").unlink()
    lines = (copied / "journal.jsonl").read_text().splitlines(keepends=True)
    (copied / "journal.jsonl").write_text("".join(lines[:3]) + '{"rate": 0.2, "pa')
    third = json.loads(lines[2])
    found = page(copied)
    assert "This run has not finished: 3 steps are journalled" in found.text
    assert f"{percent(third['rate'])} of the removable filters are gone" in found.text
    assert f"{third['params']:,}" in found.text
    assert "Class accuracies" in found.text
    assert "atency not measured" in found.text
    assert "Removed filters" not in found.text


def test_a_run_that_has_just_begun_says_so(copied: Path) -> None:
    (copied / "report.json").unlink()
    (copied / "journal.jsonl").unlink()
    found = page(copied)
    assert "0 steps are journalled" in found.text
    assert "No step has been journalled yet" in found.text
    assert "control accuracy-aware" in found.text


def test_a_run_without_samples_has_no_accuracy(small: Small, tmp_path: Path) -> None:
    free: dict[str, Any] = {"control": "one-shot", "criterion": "magnitude", "threads": 1}
    onnxprune.prune(small.proto, **free, rate=0.3, run_dir=tmp_path / "run")
    found = page(tmp_path / "run")
    assert "Not measured: the run had no samples" in found.text
    assert "Class accuracies" not in found.text
    assert "Stopped: target reached (rate)." in found.text


MARKUP = "<script>alert(1)</script>"


def test_names_with_markup_are_text(copied: Path) -> None:
    layers = [{"name": MARKUP, **LAYER}, {"name": '" onload="x', **LAYER}]
    edit(copied / "report.json", before=SIDE, after=AFTER, classes=[MARKUP] * 3, layers=layers)
    edit(copied / "report.json", inexact=[MARKUP], stopped=MARKUP, stopped_by=[MARKUP])
    edit(
        copied / "config.json",
        settings={"metric": f"mine.py:{MARKUP}", "limits": {"include": [MARKUP]}},
    )
    folder = copied.rename(copied.parent / MARKUP.replace("/", "\u2215"))
    found = page(folder)
    text = (folder / "report.html").read_text("utf-8")
    assert "alert(1)</script>" not in text
    assert "<script>alert" not in text
    assert MARKUP in found.text
    assert folder.name in found.text
    assert 'title="&#34; onload=&#34;x"' in (folder / "report.html").read_text("utf-8")


def test_a_long_name_is_whole_in_the_page(copied: Path) -> None:
    name = "/stage1/stage1.0/shortcut/shortcut.0/conv/Conv"
    edit(copied / "report.json", layers=[{"name": name, **LAYER}])
    assert f"{name} 8 \u2192 6" in page(copied).text


def test_the_templates_are_in_the_package() -> None:
    folder = Path(str(files("onnxprune.report")))
    text = Path(onnxprune.__file__).parents[1].joinpath("pyproject.toml").read_text("utf-8")
    patterns = tomllib.loads(text)["tool"]["setuptools"]["package-data"]["onnxprune.report"]
    packed = {path for pattern in patterns for path in folder.glob(pattern)}
    held = {path for path in (folder / "templates").rglob("*") if path.is_file()}
    assert held <= packed


def test_a_report_without_layers_has_a_page(copied: Path) -> None:
    edit(copied / "report.json", layers=[])
    assert "Removed filters" not in page(copied).text


def test_a_running_run_without_samples_shows_its_costs(copied: Path) -> None:
    (copied / "report.json").unlink()
    figures = {"rate": 0.1, "params": 1000, "macs": 2000, "filters": 30, "accuracy": None}
    line = json.dumps({**figures, "evaluations": 0, "seconds": 1.0})
    (copied / "journal.jsonl").write_text(f"{line}\n")
    found = page(copied)
    assert "Parameters 1,000 1,000 +0.0 %" in found.text
    assert "Not measured" in found.text


def test_a_run_in_one_step_has_a_curve_of_two_points(copied: Path) -> None:
    (copied / "journal.jsonl").write_text("")
    assert "harmonic mean" in page(copied).text


def test_of_many_classes_those_that_lost_most_come_first(copied: Path) -> None:
    before = [1.0] * 100
    after = [1.0 - k / 200 for k in range(100)]
    sides = [
        SIDE | {"accuracy": {"mean": 1.0, "harmonic": 1.0, "per_class": shares}}
        for shares in (before, after)
    ]
    names = [f"class{k:03}" for k in range(100)]
    edit(copied / "report.json", before=sides[0], after=sides[1], classes=names)
    found = page(copied)
    assert "The 40 classes that lost most, of 100." in found.text
    assert re.findall(r"class\d{3}", found.text) == names[:59:-1]
    assert [one["name"] for one in found.data["classes"]] == names[59::-1]


@pytest.mark.parametrize("name", ["config.json", "journal.jsonl", "report.json"])
def test_a_file_that_cannot_be_read_is_named(copied: Path, name: str) -> None:
    (copied / name).write_text("{broken\n")
    with pytest.raises(RunDirectoryError, match=rf"{name}: (line 1: )?cannot be read as JSON"):
        write_page(copied)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="holds no run"):
        write_page(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_page_is_small_and_whole(finished: Path) -> None:
    text = write_page(finished).read_text("utf-8")
    images = re.findall(r"data:image/png;base64,[^\"]+", text)
    assert len(text) - sum(map(len, images)) < 400_000
    assert text.count('<script type="application/json"') == 1
    assert write_page(finished).read_text("utf-8") == text, "the same files, the same page"


def test_runs_side_by_side_show_what_each_reached(
    finished: Path, copied: Path, tmp_path: Path
) -> None:
    edit(copied / "config.json", settings={"metric": "top-1", "control": "iterative"})
    text = write_comparison([finished, copied], tmp_path / "both.html").read_text("utf-8")
    found = Page(text)
    assert found.mistakes == found.open == []
    assert re.findall(r"https?://(?!www\.w3\.org/)", text) == []
    assert "2 runs side by side" in found.text
    assert "control accuracy-aware iterative" in found.text
    report = json.loads((finished / "report.json").read_text())
    assert found.text.count(f"{report['after']['params']:,}") == 2
    assert [one["name"] for one in found.data["runs"]] == ["run", "a <b> & c"]
    (link,) = found.links
    assert (tmp_path / link).resolve() == (finished / "report.html").resolve()


def test_what_is_no_number_is_none_in_the_page() -> None:
    content = {"a": [float("nan"), (1.5, float("inf"))], "b": "</script>&"}
    text = as_json(content)
    assert "<" not in text and "&" not in text
    assert json.loads(text) == {"a": [None, [1.5, None]], "b": "</script>&"}


def test_a_run_is_not_lost_where_its_page_lacks_something(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> None:
        raise ZeroDivisionError("nothing here")

    monkeypatch.setattr("onnxprune.run.evidence_of", fails)
    free: dict[str, Any] = {"control": "one-shot", "criterion": "magnitude", "threads": 1}
    result = onnxprune.prune(small.proto, **free, rate=0.3, run_dir=tmp_path / "run")
    assert result.report["rate"] > 0
    assert "the page lacks samples and layers: ZeroDivisionError: nothing here" in caplog.text
    assert (tmp_path / "run" / "report.html").is_file()


# Pictures


@pytest.mark.parametrize(("name", "begins"), [("c.svg", b"<?xml"), ("c.png", b"\x89PNG")])
def test_curves_are_drawn_for_every_method(tmp_path: Path, name: str, begins: bytes) -> None:
    curve = {"rate": [0, 0.5], "mean": [1, 0], "harmonic": [1, 0]}
    curve |= {"auc_mean": 0.25, "auc_harmonic": 0.125}
    methods = {f"one-shot/m{k}": curve for k in range(9)}
    content = write_curve_plot(methods, tmp_path / name).read_bytes()
    assert content.startswith(begins)
    if name.endswith("svg"):
        assert b"one-shot/m8  (AUC 0.250)" in content
        assert b"one-shot/m8  (AUC 0.125)" in content


def test_curves_are_not_drawn_nowhere(tmp_path: Path) -> None:
    curve = {"rate": [0], "mean": [1], "harmonic": [1], "auc_mean": 1.0, "auc_harmonic": 1.0}
    with pytest.raises(OutputError, match="cannot be written"):
        write_curve_plot({"a": curve}, tmp_path / "missing" / "c.svg")


# Tables


def cells(table: Any) -> list[list[str]]:
    return [list(column.cells) for column in table.columns]


def test_a_table_leaves_out_what_was_not_measured_but_accuracy() -> None:
    bare = {"params": 10, "macs": 0, "filters": 4, "latency_ms": None, "accuracy": None}
    assert [row.label for row in rows(bare, bare)] == ["Parameters", "MACs", "Filters", "Accuracy"]
    assert rows(bare, bare)[1].change == "+0.0 %"
    first, *_ = cells(before_after_table({"before": SIDE, "after": AFTER, "agreement": 0.5}))
    assert first[-1] == "Same class given"
    assert len(first) == 8


def test_step_lines_stand_under_each_other() -> None:
    steps = [{"rate": 0.0, "params": 193_058, "macs": 11_636_432}]
    steps.append({"rate": 0.4567, "params": 9_999, "macs": 999_400})
    assert [step_line(step, 0.93) for step in steps] == [
        "  0.0 % removed,   193 k parameters,  11.6 M MACs, harmonic mean 93.0 %",
        " 45.7 % removed,   9,999 parameters,   999 k MACs, harmonic mean 93.0 %",
    ]
    assert step_line(steps[0], None).endswith("MACs")


def test_classes_stand_under_each_other() -> None:
    sides = [{"accuracy": {"per_class": {"cat": one, "dog": None}}} for one in (0.9, 0.85)]
    names, *_, change = cells(class_table({"before": sides[0], "after": sides[1]}))
    assert (names, change) == (["cat"], ["\u22125.0 points"])


def test_of_many_tied_convolutions_the_rest_is_counted() -> None:
    saved = {"params_saved_per_filter": 1, "macs_saved_per_filter": 1}
    group = {"filters": 8, "removable_filters": 8, **saved, "pinned": [], "widths": [8] * 9}
    names = [f"conv{k}" for k in range(SHOWN + 3)]
    few = {**group, "titles": names[:SHOWN]}
    many = {**group, "titles": names}
    numbers, first, *_ = cells(group_table({"groups": [few, many]}))
    assert first == ["conv0", "conv1", "conv2", "conv3", "conv0", "conv1", "conv2", "and 4 more"]
    assert numbers == ["1", "", "", "", "2", "", "", ""]


def test_of_many_reasons_the_rest_is_counted() -> None:
    pinned = [{"reason": f"reason {k}", "channels": k + 1} for k in range(SHOWN + 2)]
    (table,) = pinned_table({"groups": [{"pinned": []}, {"pinned": pinned}]})
    numbers, reasons, channels = cells(table)
    assert numbers == ["2", "", "", "", ""]
    assert reasons == ["reason 5", "reason 4", "reason 3", "reason 2", "and 2 other reasons"]
    assert channels == ["6", "5", "4", "3", "3"]
    assert pinned_table({"groups": [{"pinned": []}]}) == []
