"""Plans name filters and read back; limits hold whatever the ranking says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.channels.groups import ChannelGroups, find_groups
from onnxprune.errors import InvalidPlan, OutputError
from onnxprune.graph.graph import Graph
from onnxprune.search.limits import Limits
from onnxprune.search.picker import Picker
from onnxprune.search.plan import Plan
from onnxprune.search.target import Floor, Target, share_removed
from onnxprune.surgery.cost import find_costs
from tests.support.models import model

TIED = Graph(
    model(
        """
        net (float[N,2,4,4] x) => (float[N,3,4,4] y)
        <float[5,2,1,1] w1, float[5,5,1,1] w2, float[4,5,1,1] w3, float[3,4,1,1] w4> {
          a = Conv(x, w1)
          b = Conv(a, w2)
          s = Add(a, b)
          c = Conv(s, w3)
          y = Conv(c, w4)
        }
        """
    )
)
GROUPS = find_groups(TIED)
"""Nodes a and b are tied by Add, c is on its own, y is the output and stays."""

plans = st.dictionaries(
    st.text(), st.lists(st.integers(0, 10**6)).map(lambda filters: tuple(sorted(set(filters))))
).map(Plan)

flags = st.lists(st.booleans(), min_size=len(GROUPS), max_size=len(GROUPS)).map(np.array)


def removable(dead: np.ndarray, groups: ChannelGroups = GROUPS) -> np.ndarray:
    return np.asarray(dead & groups.removable)


@given(plans)
def test_a_plan_reads_back(plan: Plan) -> None:
    assert Plan.from_json(plan.to_json()) == plan
    assert len(plan) == sum(map(len, plan.removed.values()))


def test_a_plan_is_saved_and_loaded(tmp_path: Path) -> None:
    plan = Plan({"conv": (1, 4)})
    assert Plan.load(plan.save(tmp_path / "plan.json")) == plan


def test_a_plan_can_be_written_by_hand() -> None:
    assert Plan.from_json('{"format": 1, "removed": {"c": [2, 0]}}').removed == {"c": (2, 0)}


@given(flags)
def test_a_plan_stands_for_the_channels_it_was_made_of(dead: np.ndarray) -> None:
    dead = removable(dead)
    np.testing.assert_array_equal(Plan.of(GROUPS, dead).dead(GROUPS), dead)


def test_one_of_tied_filters_takes_the_others_along() -> None:
    dead = Plan({"a": (3,)}).dead(GROUPS)
    assert dict(Plan.of(GROUPS, dead).removed) == {"a": (3,), "b": (3,)}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a plan"),
        ("[]", "not a plan"),
        ('{"removed": 3}', "not a plan"),
        ('{"format": 1}', "not a plan"),
        ('{"format": 1, "removed": 3}', "is an integer; expected"),
        ('{"format": 1, "removed": {}, "allow-inexact": []}', "did you mean 'allow_inexact'"),
        ('{"format": 1, "removed": {"a": [1], "a": [2]}}', "'a' is there twice"),
        ('{"format": true, "removed": {}}', "format True; expected 1"),
        ("[" * 10**5, "not a plan"),
        ('{"format": 2, "removed": {}}', "format 2; expected 1"),
    ],
)
def test_what_is_not_a_plan_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidPlan, match=says):
        Plan.from_json(text)


def test_a_plan_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidPlan, match=r"missing\.json: cannot be read"):
        Plan.load(tmp_path / "missing.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidPlan, match=r"binary\.json: cannot be read"):
        Plan.load(tmp_path / "binary.json")


def test_a_plan_is_not_saved_nowhere(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        Plan({}).save(tmp_path / "missing" / "plan.json")


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (Plan({"other": (0,)}), "no convolution 'other'"),
        (Plan({"a": (5,)}), "'a' has 5 filters, so there is no filter 5"),
    ],
)
def test_a_plan_of_another_model_is_refused(plan: Plan, says: str) -> None:
    with pytest.raises(InvalidPlan, match=says):
        plan.dead(GROUPS)


@pytest.mark.parametrize(
    "filters",
    [
        "12",
        b"12",
        12,
        None,
        True,
        {"1": 2},
        [1.9],
        [1.0],
        [True],
        ["1"],
        [None],
        [-1],
        [0, 0],
        [[1]],
    ],
)
def test_filters_of_a_plan_are_numbers(filters: Any) -> None:
    with pytest.raises(InvalidPlan, match="'conv'"):
        Plan({"conv": filters})
    if not isinstance(filters, bytes):
        text = json.dumps({"format": 1, "removed": {"conv": filters}})
        with pytest.raises(InvalidPlan, match=r"my\.json: .*'conv'"):
            Plan.from_json(text, "my.json")


@pytest.mark.parametrize(
    "content",
    [
        *(None, 3, [], "text", {"format": 1}, {"removed": {}}, {"format": 1, "removed": []}),
        {"format": 1, "removed": {}, "allow_inexact": "reducemean"},
        {"format": 1, "removed": {}, "allow_inexact": [1]},
        {"format": 1, "removed": {}, "allow_inexact": None},
        {"format": 1, "removed": {}, "allowed": []},
        {"format": "1", "removed": {}},
        {"format": True, "removed": {}},
        {"format": 1.5, "removed": {}},
    ],
    ids=repr,
)
def test_what_is_no_plan_in_json_is_refused(content: Any) -> None:
    with pytest.raises(InvalidPlan, match=r"my\.json: .*expected"):
        Plan.from_json(json.dumps(content), "my.json")


def test_plans_take_what_numbers_come_in() -> None:
    expected = Plan({"conv": (0, 3)})
    for filters in ([0, 3], (0, 3), np.array([0, 3]), (n for n in (0, 3)), range(0, 6, 3)):
        assert Plan({"conv": filters}) == expected
    for wrong in (["conv"], "conv", None, {1: [0]}, {None: [0]}):
        with pytest.raises(InvalidPlan, match="expected"):
            Plan(wrong)


# Limits


@given(st.permutations(range(len(GROUPS))), st.integers(1, 4), st.floats(0, 1))
def test_limits_hold_for_every_ranking(order: list[int], least: int, most: float) -> None:
    picker = Picker(GROUPS, Limits(min_channels=least, max_layer_rate=most))
    chosen = picker.pick(np.array(order), np.zeros(len(GROUPS), np.bool_))
    left = np.setdiff1d(np.arange(len(GROUPS)), chosen)
    assert GROUPS.removable[chosen].all()
    for group in range(len(GROUPS.names)):
        own = np.flatnonzero(GROUPS.group == group)
        gone = np.isin(own, chosen).sum()
        assert gone <= most * own.size + 1e-6
        assert np.isin(own, left).sum() >= min(least, own.size)


@given(st.permutations(range(len(GROUPS))), flags)
def test_what_is_gone_is_not_chosen_again(order: list[int], dead: np.ndarray) -> None:
    dead = removable(dead)
    chosen = Picker(GROUPS, Limits()).pick(np.array(order), dead)
    assert not dead[chosen].any()
    assert len(set(chosen.tolist())) == chosen.size


def test_the_ranking_decides_who_goes_first() -> None:
    none = np.zeros(len(GROUPS), np.bool_)
    first = Picker(GROUPS, Limits()).pick(np.arange(len(GROUPS)), none)
    last = Picker(GROUPS, Limits()).pick(np.arange(len(GROUPS))[::-1], none)
    own = np.flatnonzero(GROUPS.group == 0)
    assert set(own) - set(first.tolist()) == {own[-1]}
    assert set(own) - set(last.tolist()) == {own[0]}


def test_a_share_caps_what_a_layer_loses_at_once() -> None:
    none = np.zeros(len(GROUPS), np.bool_)
    chosen = Picker(GROUPS, Limits()).pick(np.arange(len(GROUPS)), none, layer_share=0.5)
    counts = np.bincount(GROUPS.group[chosen], minlength=len(GROUPS.names))
    assert counts.tolist() == [2, 2, 0]


@pytest.mark.parametrize(
    ("limits", "names"),
    [
        (Limits(), ()),
        (Limits(min_channels=2), ("min_channels",)),
        (Limits(max_layer_rate=0.5, exclude=("c",)), ("max_layer_rate", "exclude")),
        (Limits(round_to=2), ("round_to",)),
        (Limits(min_channels=2, max_layer_rate=0.6), ("min_channels", "max_layer_rate")),
        (Limits(min_channels=3, max_layer_rate=0.9), ("min_channels",)),
    ],
)
def test_the_limits_that_hold_channels_back_are_named(
    limits: Limits, names: tuple[str, ...]
) -> None:
    """Where all that may go is gone: each limit that alone keeps more, else all together."""
    picker, dead = Picker(GROUPS, limits), np.zeros(len(GROUPS), np.bool_)
    while (after := picker.remove(picker.pick(np.arange(len(GROUPS)), dead), dead)).sum() > (
        dead.sum()
    ):
        dead = after
    assert picker.stopped_by(dead) == names


@pytest.mark.parametrize(
    ("limits", "nodes"),
    [
        (Limits(include=("c",)), {"c"}),
        (Limits(include=("b",)), {"a", "b"}),
        (Limits(exclude=("[ab]",)), {"c"}),
        (Limits(include=("*",), exclude=("a",)), {"c"}),
        (Limits(), {"a", "b", "c"}),
    ],
)
def test_patterns_choose_groups(limits: Limits, nodes: set[str]) -> None:
    assert set(Plan.of(GROUPS, limits.allowed(GROUPS)).removed) == nodes


# Target and floor


@given(flags, st.floats(0, 1, exclude_min=True))
def test_a_rate_is_met_by_counting_filters(dead: np.ndarray, rate: float) -> None:
    dead = removable(dead)
    gone = sum(len(filters) for filters in Plan.of(GROUPS, dead).removed.values())
    assert share_removed(GROUPS, dead) == pytest.approx(gone / 14)
    costs = find_costs(TIED, GROUPS)
    assert Target(rate=rate).met(costs, dead) == (gone / 14 >= rate - 1e-9)


def test_a_share_up_to_one_is_relative_and_a_figure_above_is_absolute() -> None:
    costs = find_costs(TIED, GROUPS)
    full = costs.of()
    dead = Plan({"c": (0,)}).dead(GROUPS)
    left = costs.of(dead)
    assert left.params == full.params - 5 - 3
    for kind, now, whole in (
        ("params", left.params, full.params),
        ("macs", left.macs, full.macs),
    ):
        assert Target(**{kind: now}).met(costs, dead)
        assert not Target(**{kind: now - 1}).met(costs, dead)
        assert Target(**{kind: now / whole}).met(costs, dead)
        assert not Target(**{kind: (now - 1) / whole}).met(costs, dead)


def test_every_figure_asked_for_must_be_met() -> None:
    costs = find_costs(TIED, GROUPS)
    dead = Plan({"c": (0,)}).dead(GROUPS)
    assert not Target(rate=0.9, params=1.0).met(costs, dead)
    assert Target(params=1.0, macs=1.0).met(costs, np.zeros_like(dead)), "1 is the whole"
    assert bool(Target()) is False


@pytest.mark.parametrize(
    ("floor", "level"),
    [
        (Floor(), 0.0),
        (Floor(min_accuracy=0.7), 0.7),
        (Floor(max_drop=0.05), 0.85),
        (Floor(min_accuracy=0.7, max_drop=0.05), 0.85),
        (Floor(min_accuracy=0.88, max_drop=0.05), 0.88),
    ],
)
def test_the_higher_floor_counts(floor: Floor, level: float) -> None:
    assert floor.level(0.9) == pytest.approx(level)
    assert bool(floor) == (floor != Floor())


@pytest.mark.parametrize(
    ("floor", "names"),
    [
        (Floor(min_accuracy=0.7), ("min_accuracy",)),
        (Floor(min_accuracy=0.7, max_drop=0.05), ("max_drop",)),
        (Floor(min_accuracy=0.88, max_drop=0.05), ("min_accuracy",)),
        (Floor(), ()),
    ],
)
def test_the_floor_that_counts_is_named(floor: Floor, names: tuple[str, ...]) -> None:
    assert floor.decisive(0.9) == names


def test_the_figures_asked_for_are_named() -> None:
    assert Target(macs=0.5, latency_ms=3.0).asked == ("macs", "latency_ms")
    assert Target().asked == ()
    assert bool(Target(size=0.5)) is True


def test_the_text_is_made_to_be_read_and_edited() -> None:
    text = Plan({"a": (0, 2), "b": (1,)}).to_json()
    assert json.loads(text) == {"format": 1, "removed": {"a": [0, 2], "b": [1]}}
    assert '    "a": [0, 2],\n' in text
