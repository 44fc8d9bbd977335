"""The page of a run in a browser: no error, no request, every control, accessibility.

Needs Chromium, playwright and axe-playwright-python; `.ci/browser` installs them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune.report.page import write_page
from onnxprune.report.pair import write_pair
from onnxprune.report.side_by_side import write_comparison
from onnxprune.samples import detection
from tests.support.small_net import Small

playwright = pytest.importorskip("playwright.sync_api", reason="playwright: run .ci/browser")
pytest.importorskip("axe_playwright_python", reason="axe-playwright-python: run .ci/browser")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: run .ci/browser"),
    pytest.mark.filterwarnings("ignore"),
]
SIZES = (390, 768, 1400)
SCHEMES = ("light", "dark")
AXE = "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']})"


class Opened:
    """A page in a browser, with what went wrong in it."""

    def __init__(self, browser: Any, path: Path, width: int = 1400, scheme: str = "light") -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
        )
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page = self.context.new_page()
        self.page.on("console", lambda said: self.errors.append(f"{said.type}: {said.text}"))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda asked: self.requests.append(asked.url))
        self.page.goto(path.as_uri())

    def close(self) -> None:
        """Close it, and see that nothing went wrong."""
        self.context.close()
        assert self.errors == []
        outside = [url for url in self.requests[1:] if not url.startswith(("data:", "blob:"))]
        assert outside == []

    def text(self, selector: str) -> str:
        return str(self.page.text_content(selector))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def runs(small: Small, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run directories of all kinds, by what is special about them."""
    folder = tmp_path_factory.mktemp("runs")
    ask: dict[str, Any] = {"threads": 1, "max_drop": 0.9}
    onnxprune.prune(small.path, small.data, rate=0.5, run_dir=folder / "whole", **ask)
    free: dict[str, Any] = {"control": "one-shot", "criterion": "magnitude", "threads": 1}
    onnxprune.prune(small.path, rate=0.3, run_dir=folder / "without samples", **free)
    unlabelled = {"x": small.x}
    np.savez(folder / "x.npz", **unlabelled)
    onnxprune.prune(
        small.path, str(folder / "x.npz"), rate=0.3, run_dir=folder / "without labels", **free
    )
    onnxprune.prune(
        detection.MODEL,
        detection.REFERENCE,
        rate=0.2,
        per_class=12,
        run_dir=folder / "detector",
        **free,
    )
    for name in ("unfinished", "begun", "many classes", "one class"):
        shutil.copytree(folder / "whole", folder / name)
    (folder / "unfinished" / "report.json").unlink()
    (folder / "begun" / "report.json").unlink()
    (folder / "begun" / "journal.jsonl").unlink()
    reclassed(folder / "many classes", 1000)
    reclassed(folder / "one class", 1)
    found = {path.name: path for path in folder.iterdir() if path.is_dir()}
    for path in found.values():
        write_page(path)
    found["two models"] = folder / "two models"
    found["two models"].mkdir()
    compared = onnxprune.compare(
        small.path, folder / "whole" / "pruned.onnx", small.data, threads=1, evidence=True
    )
    write_pair(compared, ("before.onnx", "after.onnx"), found["two models"] / "report.html")
    return found


def reclassed(folder: Path, count: int) -> None:
    """Give a run so many classes, some with names that are markup."""
    report = json.loads((folder / "report.json").read_text())
    for side, share in (("before", 1.0), ("after", 0.9)):
        scores = [share - k / 2000 for k in range(count)]
        report[side]["accuracy"]["per_class"] = scores
    report["classes"] = [f"</script><b>class {k}</b> & 'more'" for k in range(count)]
    (folder / "report.json").write_text(json.dumps(report))
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    for line in lines:
        for one in (line, *line["tried"]):
            ones = [1.0] * count
            one["accuracy"] = {"correct": ones, "total": ones, "probability": ones}
    (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    evidence = json.loads((folder / "evidence.json").read_text())
    ends = {"samples": 9, "lost": 1, "gained": 0, "low": -0.4, "high": 0.1}
    evidence["classes"] = [{"class": k, **ends} for k in range(count)]
    (folder / "evidence.json").write_text(json.dumps(evidence))


KINDS = (
    *("whole", "without samples", "without labels", "unfinished", "begun"),
    *("many classes", "one class", "detector", "two models"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_has_no_fault_at_any_size(browser: Any, runs: dict[str, Path], kind: str) -> None:
    axe = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
    for scheme in SCHEMES:
        for width in SIZES:
            opened = Opened(browser, runs[kind] / "report.html", width, scheme)
            assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
            if width == SIZES[0] or kind == "whole":
                opened.page.evaluate(axe)
                found = opened.page.evaluate(AXE)
                assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
            opened.close()


def test_every_way_to_look_at_the_chart_draws(browser: Any, runs: dict[str, Path]) -> None:
    opened = Opened(browser, runs["whole"] / "report.html")
    options = opened.page.eval_on_selector_all("#chart-over option", "all => all.map(o => o.value)")
    assert {"macs", "params", "rate", "bytes", "ms"} <= set(options)
    for option in options:
        opened.page.select_option("#chart-over", option)
        assert opened.page.locator("#plot canvas").count() == 1
    opened.page.select_option("#chart-class", "0")
    assert "harmonic mean" in opened.text("#chart-legend")
    opened.page.uncheck("#chart-back")
    assert "taken back" not in opened.text("#chart-legend")
    opened.close()


def test_a_plan_of_a_step_is_the_one_that_the_run_has(
    browser: Any, runs: dict[str, Path], small: Small, tmp_path: Path
) -> None:
    opened = Opened(browser, runs["whole"] / "report.html")
    opened.page.focus("#plot")
    opened.page.keyboard.press("Home")
    said = opened.page.get_attribute("#plot", "aria-valuetext") or ""
    assert said.startswith("Step ")
    opened.page.click("#steps summary")
    opened.page.locator("#step-table tr.kept button").last.click()
    assert "onnxprune apply" in opened.text("#step code")
    with opened.page.expect_download() as started:
        opened.page.click("#step button")
    started.value.save_as(tmp_path / "plan.json")
    opened.close()
    mine = onnxprune.Plan.load(tmp_path / "plan.json")
    assert mine == onnxprune.Plan.load(runs["whole"] / "plan.json")
    onnxprune.apply(small.path, mine)


def test_enter_and_a_click_on_the_chart_choose_a_step(browser: Any, runs: dict[str, Path]) -> None:
    opened = Opened(browser, runs["whole"] / "report.html")
    opened.page.focus("#plot")
    opened.page.keyboard.press("End")
    opened.page.keyboard.press("Enter")
    first = opened.text("#step")
    assert first.startswith("Step ")
    over = opened.page.locator("#plot .u-over")
    left = {"x": 3, "y": over.bounding_box()["height"] / 2}
    over.hover(position=left)  # waits until the page no longer scrolls, which a mouse does not
    assert opened.page.locator("#plot .tip").is_visible()
    over.click(position=left)
    assert opened.text("#step") != first
    opened.close()


def test_the_drawing_goes_by_mouse_and_by_keys(browser: Any, runs: dict[str, Path]) -> None:
    opened = Opened(browser, runs["whole"] / "report.html")
    report = json.loads((runs["whole"] / "report.json").read_text())
    drawn = opened.text("#drawing svg")
    for layer in report["layers"]:
        left = layer["filters"] - layer["removed"]
        text = f"{layer['filters']} \u2192 {left} (" if layer["removed"] else f"{left} "
        assert text in drawn
    marks = opened.page.locator("#drawing [role=button]")
    marks.nth(1).click()
    assert "MACs" in opened.text("#box")
    first = report["layers"][0]
    left = first["filters"] - first["removed"]
    assert f"{left} stay" in opened.text("#box")
    assert f"{first['removed']} went" in opened.text("#box")
    bars = opened.page.locator("#box .spread rect")
    heights = [float(one.get_attribute("height") or 0) for one in bars.all()]
    assert len(heights) == 24 and max(heights) <= 60 and sum(heights) > 0
    opened.page.keyboard.press("ArrowRight")
    after = opened.text("#box")
    opened.page.keyboard.press("Home")
    assert opened.text("#box") != after
    assert opened.page.locator("#drawing [tabindex='0']").count() == 1
    widths = [opened.page.eval_on_selector("#drawing svg", "svg => svg.clientWidth")]
    for zoom in ("in", "in", "out", "fit"):
        opened.page.click(f"[data-zoom={zoom}]")
        widths.append(opened.page.eval_on_selector("#drawing svg", "svg => svg.clientWidth"))
    assert widths[0] < widths[1] < widths[2] > widths[3]
    assert widths[4] <= 1400
    opened.close()


def test_tables_sort_both_ways(browser: Any, runs: dict[str, Path]) -> None:
    opened = Opened(browser, runs["many classes"] / "report.html")
    rows = "#class-table tbody tr"
    assert opened.page.locator(rows).count() == 40
    opened.page.click("#more-classes")
    assert opened.page.locator(rows).count() == 1000
    assert opened.page.locator(f"{rows} b").count() == 0, "names are text"
    heading = opened.page.locator("#class-table th[aria-sort]", has_text="Before")
    for order, best in (("descending", "100.0 %"), ("ascending", "50.0 %")):
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == order
        assert best in opened.page.locator(rows).first.text_content()
    opened.page.click("#layers th[aria-sort] button >> nth=2")
    opened.close()


def test_opportunities_and_steps_open_and_the_command_is_copied(
    browser: Any, runs: dict[str, Path]
) -> None:
    opened = Opened(browser, runs["whole"] / "report.html")
    for summary in opened.page.locator("summary").all():
        summary.click()
    assert opened.page.locator("details:not([open])").count() == 0
    opened.page.click("[data-copy]")
    opened.page.wait_for_function("document.querySelector('[data-copy]').textContent !== 'Copy'")
    opened.close()


def test_what_is_printed_is_dark_on_white_and_has_its_headings(
    browser: Any, runs: dict[str, Path]
) -> None:
    opened = Opened(browser, runs["whole"] / "report.html", 768, "dark")
    opened.page.emulate_media(media="print")
    colours = "e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color]"
    for selector in ("body", "#verdict"):
        assert opened.page.eval_on_selector(selector, colours) == [
            "rgb(255, 255, 255)",
            "rgb(0, 0, 0)",
        ]
    assert opened.page.locator("#class-table th button").first.is_visible()
    assert not opened.page.locator("[data-zoom]").first.is_visible()
    opened.close()


def test_runs_stand_side_by_side(browser: Any, runs: dict[str, Path], tmp_path: Path) -> None:
    axe = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
    folders = [runs[kind] for kind in ("whole", "without samples", "unfinished", "begun")]
    path = write_comparison(folders, tmp_path / "compare.html")
    for width in SIZES:
        opened = Opened(browser, path, width)
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        for option in ("rate", "params"):
            opened.page.select_option("#chart-over", option)
        opened.page.evaluate(axe)
        found = opened.page.evaluate(AXE)
        assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
        opened.close()
