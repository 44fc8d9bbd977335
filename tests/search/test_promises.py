"""Floors on images that nobody has seen: what they ask, what they spare, and what they report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.arrays import BoolArray
from onnxprune.data import Data, Head
from onnxprune.evaluation import Drop, Evaluator, expected_drop
from onnxprune.progress import TAKEN_BACK
from onnxprune.report import promised
from onnxprune.report.page import page
from onnxprune.report.record import Record
from onnxprune.search import Settings, complete
from onnxprune.search.target import Floor
from onnxprune.search.unseen import are_few, foresight, on_others
from tests.support.coloured import network, pixels
from tests.support.models import run
from tests.support.simulated import Simulated, end, gone, steep

QUICK: dict[str, Any] = {"threads": 1, "device": "cpu", "preprocess": "raw", "aim": "rate"}


def arrays(each: int) -> tuple[Any, Any]:
    x, y = pixels(each)
    return (x / 255).astype(np.float32).transpose(0, 3, 1, 2), y


def without_others(net: Any, dead: BoolArray, corrected: bool) -> list[Any]:
    """The number of filters that are gone, in the place of samples."""
    return [(net, int(dead.sum()))]


def foresee(nets: Any) -> Drop:
    """A drop of a thousandth for each filter, and an error of as much."""
    ((_, gone),) = nets
    return Drop(0.001 * gone, 0.001 * gone, 1000)


SEEN: dict[str, Any] = {"foresee": foresee, "on_others": without_others}


@pytest.mark.parametrize(
    ("confidence", "most"), [(0, 60), (0.5, 30), (0.9, 13)], ids=["none", "expected", "sure"]
)
def test_a_floor_holds_on_unseen_images_as_surely_as_is_asked(confidence: float, most: int) -> None:
    floor = Floor(max_drop=0.03, confidence=confidence)
    state = end(Simulated(steep(60), floor=floor, **SEEN))
    assert gone(state) == min(most, gone(end(Simulated(steep(60), floor=Floor(max_drop=0.03)))))


def test_a_step_that_broke_on_unseen_images_says_by_how_much() -> None:
    nets = Simulated(steep(60), floor=Floor(max_drop=0.03), **SEEN)
    kept = end(nets)
    assert nets.floors.broken and min(nets.floors.broken.values()) > 0.03
    assert kept.net not in nets.floors.broken


def test_the_reference_samples_are_asked_first() -> None:
    asked: list[int] = []

    def counted(nets: Any) -> Drop:
        asked.extend(gone for _, gone in nets)
        return Drop(0.0, 0.0, 100)

    seen: dict[str, Any] = {"foresee": counted, "on_others": without_others}
    nets = Simulated(steep(7), floor=Floor(max_drop=0.1), **seen)
    assert gone(end(nets)) in (6, 7)
    assert asked and max(asked) <= 7


def test_what_breaks_on_unseen_samples_is_not_tried_elsewhere() -> None:
    """Of many tries one would seem to hold by luck."""
    seen: dict[str, Any] = {"foresee": lambda _: Drop(1.0, 0.0, 10), "on_others": without_others}
    state = end(Simulated(steep(60), floor=Floor(max_drop=0.03), **seen))
    assert (gone(state), state.stopped, state.barred) == (0, "floor", ())


def test_without_a_floor_nothing_is_foreseen() -> None:
    def never(*_: Any) -> Drop:
        raise AssertionError

    assert end(Simulated(steep(60), foresee=never, on_others=never)).stopped == "limits"


class Folded:
    """A correction that leaves the model and remembers what was left out."""

    def __init__(self, folds: Any) -> None:
        self.folds, self.without = np.array(folds), list[Any]()

    def __call__(self, net: Any, dead: Any, *, without: int | None = None) -> Any:
        self.without.append(without)
        return net


def test_corrected_weights_are_foreseen_on_samples_that_they_were_not_fitted_to() -> None:
    x, y = arrays(2)
    correct = Folded(np.arange(len(y)) % 3)
    evaluator = Evaluator(Data(x, y, tuple(map(str, range(6)))), threads=1, device="cpu")
    seen = foresight(network(), evaluator)
    assert seen is not None
    found = seen(on_others(correct, len(y), network(), np.zeros(1, np.bool_), corrected=True))
    assert correct.without == [0, 1, 2] and found.expected == pytest.approx(0, abs=1e-9)


def test_nothing_is_foreseen_of_other_metrics_or_of_what_was_made_up() -> None:
    x, y = arrays(2)
    names = tuple(map(str, range(6)))
    for metric, data in (
        ("top-5", Data(x, y, names)),
        ("top-1", Data(x, y, names, generated="noise")),
        ("top-1", Data(x[:1], y[:1], names)),
    ):
        assert foresight(network(), Evaluator(data, metric=metric)) is None
    assert foresight(network(), None) is None


def test_agreement_of_numbers_is_foreseen_by_what_each_sample_adds(tmp_path: Path) -> None:
    x, _ = arrays(4)
    net = network()
    named = (f"{net.graph.output[0].name}=values",)
    folder = tmp_path / "run"
    result = onnxprune.prune(net, x, max_drop=0.2, run_dir=folder, outputs=named, **QUICK)
    found = result.report["promise"]
    assert found["bound"] <= found["allowed"] == pytest.approx(0.2)
    lost = 1 - result.report["after"]["accuracy"]["harmonic"]
    if not result.report["corrected"]:
        assert found["expected"] == pytest.approx(lost, abs=1e-6)
    assert found["samples"] == len(x)
    assert "on samples like these" in promised(result.report)


def test_the_floor_that_nobody_asked_for_heeds_the_confidence() -> None:
    x, y = arrays(4)
    whole = complete(Settings.of(confidence=0.0), Data(x, y, tuple(map(str, range(6)))))
    assert whole.floor == Floor(max_drop=0.01, confidence=0.0)


def test_few_are_less_than_ten_of_a_class() -> None:
    x, y = arrays(10)
    names = tuple(map(str, range(6)))
    assert not are_few(Data(x, y, names)) and are_few(Data(x[1:], y[1:], names))
    assert not are_few(None)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_run_reports_what_it_promises(labelled: bool, tmp_path: Path) -> None:
    x, y = arrays(10)
    net = network()
    given = (x, y) if labelled else x
    named = () if labelled else (f"{net.graph.output[0].name}=classes",)
    folder = tmp_path / "run"
    result = onnxprune.prune(net, given, max_drop=0.05, run_dir=folder, outputs=named, **QUICK)
    found = result.report["promise"]
    assert found["confidence"] == 0.9 and found["allowed"] == pytest.approx(0.05)
    assert found["bound"] <= 0.05 + 1e-9 and found["samples"] == 60
    if labelled and not result.report["corrected"]:
        before, after = (run(one, x) for one in (net, result.model))
        drop = expected_drop(before, after, y)
        assert found["expected"] == pytest.approx(drop.expected, abs=1e-5)
        assert found["bound"] == pytest.approx(drop.bound(0.9), abs=1e-5)
    assert "at 90 % confidence (5 allowed), as far as 60 samples" in promised(result.report)
    assert promised(result.report)[1:] in page(Record.read(folder))
    assert json.loads((folder / "report.json").read_text())["decisive"] == "harmonic"


def test_a_log_says_what_broke_on_unseen_images(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", TAKEN_BACK)
    monkeypatch.setattr(Drop, "bound", lambda drop, confidence: 0.061)
    onnxprune.prune(network(), arrays(10), max_drop=0.05, **QUICK)
    assert "%, up to 6.1 points less on unseen samples: taken back" in caplog.text


def test_no_confidence_promises_nothing() -> None:
    result = onnxprune.prune(network(), arrays(10), max_drop=0.05, confidence=0, **QUICK)
    assert result.report["promise"] is None and promised(result.report) == ""


def test_with_one_image_of_each_class_the_shrunk_figure_decides() -> None:
    x, y = arrays(1)
    result = onnxprune.prune(network(), (x, y), max_drop=0.2, confidence=0.5, **QUICK)
    assert result.report["decisive"] == "shrunk_harmonic"
    sides = [result.report[side]["accuracy"]["shrunk_harmonic"] for side in ("before", "after")]
    assert sides[0] - sides[1] <= 0.2 + 1e-9


@pytest.mark.parametrize(("raised", "hits_say_more"), [(4, False), (6, True)])
def test_agreement_in_classes_is_not_smoothed_away(raised: int, hits_say_more: bool) -> None:
    """A network that raises the score of one class; what changes the answer is lost."""
    x, _ = arrays(10)
    before = run(network(), x)[0]
    other = network()
    (tensor,) = (one for one in other.graph.initializer if one.name == "c")
    moved = numpy_helper.to_array(tensor) + raised * (np.arange(6) == 3)
    tensor.CopyFrom(numpy_helper.from_array(moved.astype(np.float32), "c"))
    y, names = before.argmax(1), tuple(map(str, range(6)))
    smooth, hits = (expected_drop(before, run(other, x)[0], y, smooth=one) for one in (True, False))
    assert (hits.expected > smooth.expected) == hits_say_more
    for metric, drop in (("top-1", smooth), ("fidelity", hits if hits_say_more else smooth)):
        data = Data(x, y, names, heads=(Head("y", "classes", 1),), reference={"y": before})
        foresee = foresight(network(), Evaluator(data, metric=metric, threads=1, device="cpu"))
        assert foresee is not None
        found = foresee([(other, np.arange(len(x)))])
        assert found.expected == pytest.approx(drop.expected, abs=1e-5)
