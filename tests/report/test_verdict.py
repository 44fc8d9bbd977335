"""The verdict, the intervals and the opportunities: what a run may and may not say of itself."""

from __future__ import annotations

import base64
import zlib
from math import comb
from typing import Any

import numpy as np
import pytest

from onnxprune.errors import DataError
from onnxprune.report.changes import ClassRow
from onnxprune.report.colouring import COLOURS, colours_of, neighbours
from onnxprune.report.figures import HELD_OUT, rows
from onnxprune.report.intervals import paired, redrawn, resampled, weighted, wilson
from onnxprune.report.opportunities import opportunities
from onnxprune.report.png import LARGEST, OUTLINE, data_uri, heat, outlined, photo, shrunk
from onnxprune.report.record import Record
from onnxprune.report.side_by_side import comparison
from onnxprune.report.steps import coded, steps_of
from onnxprune.report.verdict import judged, verdict

BEFORE: dict[str, Any] = {
    "params": 1000,
    "macs": 10_000,
    "filters": 64,
    "size_bytes": 5_000_000,
    "latency_ms": 2.9,
    "accuracy": {"mean": 0.9, "harmonic": 0.9, "shrunk_harmonic": 0.9, "per_class": [0.9, 0.9]},
}


def accuracy(mean: float) -> dict[str, Any]:
    return {"mean": mean, "harmonic": mean, "shrunk_harmonic": mean, "per_class": [mean, mean]}


def record(
    interval: tuple[float, float] | None = (-0.04, 0.01), floor: float | None = 0.05, **after: Any
) -> Record:
    changed = {"params": 170, "macs": 3000, "size_bytes": 850_000, "latency_ms": 1.0}
    report = {
        "before": BEFORE,
        "after": {**BEFORE, **changed, "accuracy": accuracy(0.887), **after},
        "rate": 0.5,
        "layers": [{"name": "a", "filters": 16, "removed": 3}],
        "metric": "top-1",
        "classes": ["a", "b"],
        "samples": 300,
    }
    evidence: dict[str, Any] = {}
    if interval is not None:
        low, high = interval
        method = "paired"
        evidence["interval"] = {"low": low, "high": high, "samples": 300, "method": method}
    return Record("run", {"floor": {"max_drop": floor}}, [], report, {}, evidence)


def test_a_good_run_says_so_in_one_line() -> None:
    found = verdict(record())
    assert found.standing == "good"
    assert found.text == (
        "2.9× faster, 83 % smaller, accuracy \u22121.3 points (95 % interval \u22124.0 to +1.0 on "
        "300 samples)"
    )


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (record(latency_ms=3.2), "1.1× slower"),
        (record(interval=(-0.04, -0.01)), "\u22124.0 to \u22121.0"),
        (record(accuracy=accuracy(0.84)), "\u22126.0 points"),
        (record(size_bytes=6_000_000), "20 % larger"),
    ],
)
def test_whatever_got_worse_makes_the_verdict_red_and_is_said_first(run: Record, said: str) -> None:
    found = verdict(run)
    assert found.standing == "bad"
    first = found.clauses[0]
    assert said in first.text and first.standing == "bad"


@pytest.mark.parametrize(("high", "standing"), [(-0.01, "bad"), (0.01, "same")])
def test_accuracy_is_red_in_the_figures_where_it_is_in_the_verdict(
    high: float, standing: str
) -> None:
    run = record(interval=(-0.04, high))
    assert run.sides is not None
    found = {row.label: row.standing for row in rows(*run.sides, judged=judged(run))}
    assert found["Mean accuracy"] == found["Harmonic mean"] == standing
    assert found["MACs"] == "good"
    assert comparison([run], [""]).count('class="change worse"') == 2 * (standing == "bad")


def test_a_change_that_is_written_as_nothing_makes_no_verdict_red() -> None:
    """Agreement with the unpruned model, which nothing exceeds, is lower after any change."""
    unseen = record(interval=(-0.0003, -0.0001), accuracy=accuracy(0.8998))
    found = verdict(unseen)
    assert found.standing == "good"
    assert "accuracy \u22120.0 points" in found.text
    assert not any("accuracy was lost" in note for note in found.notes)
    seen = verdict(record(interval=(-0.0012, -0.0001), accuracy=accuracy(0.8993)))
    assert seen.standing == "bad"
    assert any("accuracy was lost" in note for note in seen.notes)


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (record(None, accuracy=None), "accuracy not measured"),
        (record(latency_ms=None), "latency not measured"),
        (Record("run", {}, [], None), "nothing to compare yet"),
    ],
)
def test_what_nobody_measured_is_no_success(run: Record, said: str) -> None:
    found = verdict(run)
    assert found.standing == "unknown"
    assert said in found.clauses[0].text


def test_a_floor_that_holds_for_a_class_that_is_never_right_is_the_shrunk_one() -> None:
    run = record()
    before = {**BEFORE, "accuracy": {**accuracy(0.5), "harmonic": 0.0, "shrunk_harmonic": 0.4}}
    after = {**BEFORE, "accuracy": {**accuracy(0.5), "harmonic": 0.0, "shrunk_harmonic": 0.3}}
    assert run.report is not None
    report = {**run.report, "before": before, "after": after}
    assert verdict(Record("run", run.settings, [], report)).standing == "bad"


# Intervals


@pytest.mark.parametrize("total", [5, 20, 200])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.8])
def test_an_interval_of_a_share_holds_it_as_often_as_it_says(total: int, share: float) -> None:
    held = 0.0
    for right in range(total + 1):
        low, high = wilson(right, total)
        chance = comb(total, right) * share**right * (1 - share) ** (total - right)
        held += chance * (low <= share <= high)
    assert held > 0.9


@pytest.mark.parametrize("total", [20, 300])
def test_an_interval_of_a_change_holds_it_as_often_as_it_says(total: int) -> None:
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(total, [0.06, 0.02, 0.92], 2000)
    ends = [paired(lost, gained, total) for lost, gained, _ in drawn.tolist()]
    held = np.mean([low <= -0.04 <= high for low, high in ends])
    assert held >= 0.93


def test_a_change_of_equal_classes_is_that_of_all_samples() -> None:
    lost, gained = np.repeat([1.0, 0.0], [3, 27]), np.repeat([0.0, 1.0], [29, 1])
    assert weighted(lost, gained, np.ones(30)) == pytest.approx(paired(3, 1, 30))
    uneven = weighted(lost, gained, np.repeat([5.0, 1.0], [3, 27]))
    assert uneven[1] - uneven[0] > 0.2, "few samples that weigh much tell less"


def test_a_resampled_change_is_none_where_both_are_alike() -> None:
    side = (np.eye(8)[:, :2], np.ones((8, 2)))
    assert resampled(side, side) == (0.0, 0.0)
    low, high = resampled(side, (np.zeros((8, 2)), np.ones((8, 2))))
    assert low <= -0.125 <= high <= 0.0


# Opportunities


def titles(run: Record) -> list[str]:
    return [one.title for one in opportunities(run)]


def test_what_a_run_could_gain_has_an_estimate() -> None:
    found = {one.title: one for one in opportunities(record(latency_ms=2.0))}
    assert found["Round the widths"].gain == "up to 56 % of the latency"
    assert "1 of 1 pruned layers" in found["Round the widths"].why
    assert "about 1,900 would tell it" in found["Measure on more samples"].why


def test_a_run_that_lacks_nothing_is_told_nothing() -> None:
    run = record(interval=(-0.005, 0.005), latency_ms=0.87, size_bytes=200)
    assert titles(run) == []
    assert titles(Record("run", {}, [], None)) == []


def test_groups_that_stay_are_named_with_what_frees_them() -> None:
    layers = [{"name": "a", "title": "a", "group": 0, "channels": [[0, 8]]}]
    reasons = [{"text": "feeds LayerNorm 'n'", "lift": "layernorm", "channels": 8}]
    group = {"title": "a", "channels": 8, "removable": 0, "reasons": reasons}
    run = record(interval=None, latency_ms=0.87, size_bytes=200)
    network = {"layers": layers, "groups": [group], "dense": [{"name": "d", "params": 500}]}
    run.about["network"] = network  # type: ignore[index]
    run.evidence["layers"] = {"a": {"macs": [70, 70]}, "b": {"macs": [30, 9]}}  # type: ignore[index]
    free, dense = opportunities(run)
    assert (free.title, free.how) == ("Free a", "--allow-inexact layernorm")
    assert free.gain == "up to 70.0 % of the MACs lie there"
    assert (dense.how, dense.gain) == ("--also dense", "about 250 parameters")


# Steps


def line(rate: float, dead: list[int], **more: Any) -> dict[str, Any]:
    figures = {"rate": rate, "params": 10, "macs": 10, "filters": 4, "accuracy": None}
    return {**figures, "dead": dead, "corrected": False, "tried": [], **more}


def decoded(code: str) -> list[int]:
    found: list[int] = []
    end = 0
    for word in filter(None, code.split(",")):
        gap, _, count = word.partition(".")
        first = end + int(gap, 36)
        end = first + (int(count, 36) if count else 1)
        found += range(first, end)
    return found


def test_plans_in_a_page_read_back() -> None:
    rng = np.random.default_rng(0)
    for share in (0.0, 0.1, 0.9, 1.0):
        numbers = np.flatnonzero(rng.random(500) < share).tolist()
        assert decoded(coded(numbers)) == numbers


def test_steps_that_were_taken_back_follow_the_one_they_started_from() -> None:
    back = line(0.5, [0, 1])
    steps = [
        line(0.0, []),
        line(0.25, [1], tried=[back]),
        line(0.25, [1], tried=[line(0.5, [1, 3])]),
    ]
    found = steps_of(Record("run", {}, steps, None))
    assert [(one["step"], one["kind"]) for one in found] == [
        (0, "kept"),
        (0, "back"),
        (1, "kept"),
        (1, "back"),
    ]
    assert [decoded(one["plan"]) for one in found] == [[], [0, 1], [1], [3]]


# Colours and pictures


def test_groups_that_neighbour_never_have_one_colour() -> None:
    places = {k: [(30.0 * (k % 6), 30.0 * (k // 6))] for k in range(24)}
    edges = [(k, k + 1) for k in range(23)]
    apart = neighbours(list(range(24)), edges, places)
    found = colours_of(places, apart)
    assert len(found) >= len(COLOURS)
    for one, other in map(sorted, apart):
        assert one not in found or found[one] != found.get(other)


def test_a_line_through_a_plain_box_makes_neighbours() -> None:
    places = {1: [(0.0, 0.0)], 2: [(9e3, 0.0)], 3: [(0.0, 9e3)]}
    assert neighbours([1, None, 2, 3], [(0, 1), (1, 2), (2, 1)], places) == {frozenset((1, 2))}


def test_a_picture_reads_back() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    raw = base64.b64decode(data_uri(pixels).partition(",")[2])
    assert raw[16:24] == bytes([0, 0, 0, 4, 0, 0, 0, 2])
    body = zlib.decompress(raw[raw.index(b"IDAT") + 4 : raw.index(b"IEND") - 8])
    assert [body[0], body[13]] == [0, 0]
    assert body[1:13] + body[14:] == pixels.tobytes()


def test_a_large_image_becomes_small_without_losing_a_part() -> None:
    image = np.zeros((500, 301, 3))
    image[499] = 6.0
    small = shrunk(image)
    assert max(small.shape) <= LARGEST
    assert small[-1].min() > 0
    assert small.shape[1] == 51


def test_what_speaks_for_an_answer_is_red_and_against_it_blue() -> None:
    image = photo(np.ones((4, 4, 1)))
    found = heat(np.array([[1.0, -1.0, 0.0, 0.0]] * 4), image).astype(int)
    red, blue, none = found[0, 0], found[0, 1], found[0, 2]
    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 50
    assert none[0] == none[1] == none[2]


def test_boxes_are_outlined_where_they_are_and_nothing_else_changes() -> None:
    plain = np.full((48, 96, 3), 200, np.uint8)
    boxes = np.array([[20.0, 10.0, 60.0, 50.0], [-9.0, 80.0, 900.0, np.nan]])
    found = outlined(plain, boxes, (96, 192))
    marked = (found == OUTLINE).all(-1)
    assert marked[5, 10:31].all()
    assert marked[5:26, 10].all()
    assert not marked[6:25, 11:30].any()
    assert (found[~marked] == 200).all()
    assert not (plain != 200).any()


def test_what_held_out_samples_say_is_in_the_verdict() -> None:
    run = record(floor=0.05)
    assert run.report is not None
    run.report["held_out"] = accuracy(0.84)
    found = verdict(run)
    assert found.standing == "bad"
    assert found.text.startswith("Held out, 84.0 % is below the floor of 85.0 %, ")
    assert _red(run) == [HELD_OUT]
    run.report["held_out"] = accuracy(0.86)
    assert verdict(run).standing == "good"
    assert _red(run) == []


def test_half_of_the_accuracy_gone_is_no_better_run_whatever_the_interval_says() -> None:
    """Of few samples the interval of the mean spans 0, and without a floor none is broken."""
    run = record((-0.2, 0.1), floor=None)
    assert run.report is not None
    run.report["held_out"] = accuracy(0.46)
    assert verdict(run).standing == "good"
    run.report["held_out"] = accuracy(0.44)
    assert verdict(run).standing == "bad"
    assert verdict(run).text.startswith("Held out, 44.0 % is less than half of what it was, ")
    assert _red(run) == [HELD_OUT]
    one_class_is_lost = {**accuracy(0.887), "harmonic": 0.0}
    run = record((-0.2, 0.1), floor=None, accuracy=one_class_is_lost)
    assert run.report is not None
    run.report["held_out"] = one_class_is_lost
    assert verdict(run).standing == "bad"
    assert verdict(run).text.startswith("Accuracy \u22121.3 points (95 % interval")


def test_a_class_is_red_where_a_change_that_shows_is_no_chance() -> None:
    found = [ClassRow("a", 0.9, 0.9 - drop, 9, low, high).lost for drop, low, high in DROPS]
    assert found == [False, True, False, True]


DROPS = [(1e-6, None, None), (0.1, None, None), (0.1, -0.3, 0.1), (0.1, -0.2, -0.05)]


def _red(run: Record) -> list[str]:
    """The figures that are red."""
    assert run.sides is not None and run.report is not None
    found = rows(*run.sides, held_out=run.report["held_out"], judged=judged(run))
    return [row.label for row in found if row.standing == "bad"]


def test_scores_that_do_not_add_up_are_drawn_again() -> None:
    """Of means they do: both ways give the same interval, but for the number of draws."""
    rng = np.random.default_rng(3)
    before = rng.random((80, 2)) < 0.9
    after = before & (rng.random((80, 2)) < (0.95, 0.7))

    def scores(rows: Any) -> Any:
        if rows[0] % 10 == 0:
            raise DataError("nothing to measure")
        return before[rows].mean(0), after[rows].mean(0)

    drawn = redrawn(scores, 80)
    assert drawn is not None
    (low, high), times = drawn
    assert 75 < times < 100
    for k in range(2):
        right, of = (before[:, [k]], np.ones((80, 1))), np.ones((80, 1))
        ends = resampled(right, (after[:, [k]].astype(float), of))
        np.testing.assert_allclose((low[k], high[k]), ends, atol=0.03)
    assert high[1] < 0 < -low[1]


def test_too_few_draws_tell_nothing() -> None:
    def never(rows: Any) -> Any:
        raise DataError("nothing to measure")

    assert redrawn(never, 10) is None
    drawn = redrawn(lambda rows: (np.array([np.nan, 0.5]), np.array([0.1, 0.4])), 10)
    assert drawn is not None
    assert np.isnan(drawn[0][:, 0]).all() and np.allclose(drawn[0][:, 1], -0.1)
