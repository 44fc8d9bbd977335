"""What is said of a run beside its figures: why it stopped, what got worse, what is not known."""

import re
from typing import Any

import pytest

import onnxprune
from onnxprune.cli.commands import main
from onnxprune.report.figures import rows, ruined, slower, why_stopped
from tests.support.runs import FREE, samples
from tests.support.small_net import Small


def timed(before: float | None, after: float | None, **more: Any) -> dict[str, Any]:
    return {"before": {"latency_ms": before}, "after": {"latency_ms": after}, **more}


LAYERS = [{"filters": 16, "removed": 5}, {"filters": 16, "removed": 8}]


def test_a_target_that_the_model_met_as_it_came_is_said_to_be_so() -> None:
    report = {"stopped": "target", "stopped_by": ["latency_ms"], "rate": 0.0}
    assert why_stopped(report) == (
        "the model as it came meets the target (latency-ms), so nothing was removed"
    )
    assert why_stopped({**report, "rate": 0.5}) == "target reached (latency-ms)"


def test_a_latency_that_was_met_by_nothing_is_no_success(
    small: Small, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    given = f"prune {small.path} -o {tmp_path}/s.onnx --latency-ms 1e6 --run-dir {tmp_path}/run"
    with pytest.raises(SystemExit):
        main([*given.split(), "--control", "one-shot", "--criterion", "magnitude"])
    said = capsys.readouterr().err
    assert "stopped: the model as it came meets the target (latency-ms), so nothing was" in said
    assert "Stopped:\nthe model as it came meets" in (tmp_path / "run/report.html").read_text()


@pytest.mark.parametrize(("before", "after"), [(None, None), (2.0, 1.9), (2.0, 2.03), (2.0, None)])
def test_a_latency_that_did_not_rise_needs_no_word(
    before: float | None, after: float | None
) -> None:
    assert slower(timed(before, after, layers=LAYERS)) == ""


def test_a_slower_model_is_said_to_be_slower_and_what_to_do() -> None:
    line = slower(timed(2.0, 2.216, layers=LAYERS))
    assert line == (
        "The pruned model is slower: 2 ms before, 2.22 ms after (+10.8 %); runtimes like widths "
        "that are multiples of 8: give --round-to auto."
    )
    assert "--round-to auto" in slower(timed(2.0, 2.5))
    round_already = slower(timed(2.0, 2.5, layers=LAYERS[1:]))
    assert "--round-to" not in round_already and "--latency-ms" in round_already


@pytest.mark.parametrize(("decisive", "after"), [("", 0.4), ("shrunk_harmonic", 0.2)])
def test_a_model_that_lost_most_is_said_to_be_of_no_use(decisive: str, after: float) -> None:
    def sides(level: float) -> dict[str, Any]:
        accuracies = {"harmonic": 0.9, "shrunk_harmonic": 0.5}
        lost = accuracies | {decisive or "harmonic": level}
        return {"before": {"accuracy": accuracies}, "after": {"accuracy": lost}}

    kept = (0.5 if decisive else 0.9) / 2
    assert ruined(sides(kept) | {"decisive": decisive}) == ""
    line = ruined(sides(after) | {"decisive": decisive, "stopped": "target"})
    assert line.startswith("More than half of the accuracy is gone: the harmonic mean fell from ")
    assert line.endswith(
        f" to {after:.1%}; ask for less, or bound the loss with --max-drop.".replace("%;", " %;")
    )
    assert "--max-drop" not in ruined(sides(after) | {"decisive": decisive})
    assert ruined({"before": {"accuracy": None}, "after": {"accuracy": None}}) == ""
    unseen = {"decisive": decisive, "stopped": "target", "held_out": {"harmonic": after}}
    assert ruined(sides(kept) | unseen).startswith(
        "More than half of the accuracy is gone on samples that the correction has not seen: "
    )
    assert ruined(sides(kept) | unseen).endswith(
        "; give more, ask for less, or bound the loss with --max-drop."
    )
    assert " on samples" not in ruined(sides(after) | unseen)
    assert ruined(sides(kept) | unseen | {"held_out": {"harmonic": kept}}) == ""


def test_a_slower_model_is_said_to_be_slower_first(
    small: Small,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("onnxprune.search.clocks.latencies", lambda *a, **b: [1.0, 2.0])
    given = f"prune {small.path} -o {tmp_path}/s.onnx --data {small.data} --run-dir {tmp_path}/run"
    with pytest.raises(SystemExit) as stop:
        main([*given.split(), "--control", "one-shot", "--rate", "0.3", "--threads", "1"])
    assert not stop.value.code
    printed = capsys.readouterr().out
    assert printed.strip().startswith("The pruned model is ")
    text = (tmp_path / "run/report.html").read_text()
    assert 'class="verdict bad"' in text
    assert re.search(r'class="clause bad">\s*2× slower', text)
    assert ".verdict.bad { background: var(--bad-back)" in text
    assert "onnxruntime, 1 thread, batch of 1<" in text
    assert 0 < text.index("The pruned model is slower") < text.index("Stopped:")


def test_accuracy_that_nobody_measured_is_said_to_be_so(small: Small) -> None:
    free = onnxprune.prune(small.proto, rate=0.3, **FREE).report
    found = {row.label: row.change for row in rows(free["before"], free["after"])}
    assert found["Accuracy"] == "not measured"
    measured = onnxprune.prune(
        small.proto, samples(small), rate=0.3, control="one-shot", threads=1
    ).report
    assert "Accuracy" not in {row.label for row in rows(measured["before"], measured["after"])}


def test_where_a_class_is_never_right_the_figure_of_the_floor_is_shown() -> None:
    side = {"params": 10, "macs": 10, "filters": 4}
    right = {"mean": 0.5, "harmonic": 0.5, "shrunk_harmonic": 0.5, "per_class": [0.5, 0.5]}
    never = {"mean": 0.5, "harmonic": 0.0, "shrunk_harmonic": 0.25, "per_class": [1.0, 0.0]}
    found = rows({**side, "accuracy": never}, {**side, "accuracy": right})
    assert (found[-1].label, found[-1].change) == ("Harmonic mean, shrunk", "+25.0 points")
    found = rows({**side, "accuracy": right}, {**side, "accuracy": never})
    assert found[-1].label == "Harmonic mean"
