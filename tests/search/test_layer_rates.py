"""Single layers lose the share that is asked for; rates are shares of what is included."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import onnxprune
from onnxprune.channels.groups import find_groups
from onnxprune.cli.tables import step_line
from onnxprune.errors import OnnxPruneError
from onnxprune.graph.graph import Graph
from onnxprune.search.assemble import make_task
from onnxprune.search.limits import Limits
from onnxprune.search.picker import Picker
from onnxprune.search.settings import Settings
from tests.support.models import model
from tests.support.runs import FREE, samples
from tests.support.small_net import Small

WIDTHS = {"a": 40, "b": 20, "c": 10, "d": 10}
NET = """
net (float[N,3,4,4] x) => (float[N,5] y)
<float[40,3,1,1] w1, float[20,40,1,1] w2, float[10,20,1,1] w3, float[10,20,3,3] w4,
 float[10,5] w5> {
  [a] a = Conv(x, w1)
  [b] b = Conv(a, w2)
  [c] c = Conv(b, w3)
  [d] d = Conv<pads = [1,1,1,1]>(b, w4)
  e = Add(c, d)
  g = GlobalAveragePool(e)
  f = Flatten(g)
  y = MatMul(f, w5)
}
"""
"""`c` and `d` are one group."""
GROUPS = find_groups(Graph(model(NET)))


def lost(**asked: Any) -> dict[str, int]:
    found = onnxprune.prune(model(NET), **{**FREE, "round_to": 1, **asked})
    return {layer["name"]: layer["removed"] for layer in found.report["layers"]}


def refusal(**asked: Any) -> str:
    with pytest.raises(OnnxPruneError) as caught:
        lost(**asked)
    return str(caught.value)


# Shares of single layers


@pytest.mark.parametrize(
    ("asked", "gone"),
    [
        ({"a": 0.3}, {"a": 12, "b": 0, "c": 0, "d": 0}),
        ({"a": 0.3, "b": 0.5}, {"a": 12, "b": 10, "c": 0, "d": 0}),
        ({"c": 0.59}, {"a": 0, "b": 0, "c": 5, "d": 5}),
        ({"[cd]": 0.2, "d": 0.2}, {"a": 0, "b": 0, "c": 2, "d": 2}),
        ({"*": 0.1, "b": 0.1}, {"a": 4, "b": 2, "c": 1, "d": 1}),
    ],
)
def test_a_layer_loses_its_share_and_nothing_else_goes(
    asked: dict[str, float], gone: dict[str, int]
) -> None:
    assert lost(layer_rate=asked) == gone
    assert lost(layer_rate=list(asked.items()), control="iterative") == gone


@pytest.mark.parametrize("rate", [0.1, 0.4])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.8])
def test_the_rest_follows_the_target(share: float, rate: float) -> None:
    gone = lost(layer_rate={"a": share}, rate=rate)
    assert gone["a"] == share * 40
    whole = sum(WIDTHS.values())
    assert sum(gone.values()) == pytest.approx(max(rate * whole, share * 40), abs=2)


def test_a_search_aims_at_layers_with_a_share_alone_unless_more_is_asked_for() -> None:
    def groups(**asked: Any) -> set[int]:
        settings = Settings.of(**FREE, compensate="none", layer_rate={"a": 0.3}, **asked)
        picker = make_task(Graph(model(NET)), None, settings).picker
        return set(GROUPS.group[picker.allowed].tolist())

    assert groups() == {0}
    assert groups(rate=0.2) == groups(max_drop=0.1) == {0, 1, 2}


def test_a_report_says_what_was_reached() -> None:
    asked = {**FREE, "layer_rate": {"a": 0.5}}
    report = onnxprune.prune(model(NET), **asked).report
    assert (report["stopped"], report["stopped_by"]) == ("target", ["layer_rate"])
    report = onnxprune.prune(model(NET), **asked, rate=0.4).report
    assert report["stopped_by"] == ["rate", "layer_rate"]


@pytest.mark.parametrize(
    ("round_to", "gone"), [(1, 13), (4, 12), (8, 8), (10, 10), ("auto", 8)], ids=str
)
def test_shares_are_rounded_as_widths_are(round_to: Any, gone: int) -> None:
    groups = find_groups(Graph(model(NET)))
    picker = Picker(groups, Limits(round_to=round_to, layer_rate=(("a", 0.34),)), 8, rest=False)
    assert groups.filters[0].node == "a"
    assert picker.most().sum() == gone


def test_a_layer_without_a_block_to_lose_loses_single_filters() -> None:
    rates = (("a", 0.3), ("b", 0.3), ("c", 0.15))
    assert Picker(GROUPS, Limits(layer_rate=rates), 8).quotas == {0: 8, 1: 4, 2: 1}
    assert "ask for more" in refusal(layer_rate={"c": 0.3}, round_to=16)


@given(
    st.lists(st.floats(0, 0.9), min_size=3, max_size=3),
    st.permutations(range(len(GROUPS))),
    st.sampled_from([1, 4]),
    st.booleans(),
)
def test_shares_hold_for_every_ranking(
    shares: list[float], order: list[int], multiple: int, rest: bool
) -> None:
    rates = tuple(zip("abc", shares, strict=True))[: len(shares) - rest]
    picker = Picker(GROUPS, Limits(round_to=multiple, layer_rate=rates), rest=rest)
    dead = np.zeros(len(GROUPS), np.bool_)
    while picker.due(dead):
        chosen = picker.pick(np.array(order), dead)
        assert np.isin(GROUPS.group[chosen], [*picker.due(dead)]).all()
        dead = picker.remove(chosen, dead)
    for group, (_, share) in enumerate(rates):
        own = GROUPS.group == group
        assert dead[own].sum() == picker.quotas[group]
        assert 0 <= share * own.sum() - dead[own].sum() < multiple + 1e-6
    assert (picker.most()[GROUPS.group == 2].sum() > 0) == (rest or picker.quotas[2] > 0)
    assert (picker.most()[GROUPS.group == 0].sum()) == picker.quotas[0]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"layer_rate": {"z": 0.3}}, "layer-rate 'z': matches no convolution; near names are"),
        (
            {"layer_rate": {"c": 0.3, "d": 0.4}},
            "'c=0.3' and 'd=0.4' both match 'c', 'd', whose filters go together",
        ),
        ({"layer_rate": {"a": 1.0}}, "of 'a' at most 39 of 40 filters can go, 40 are asked for"),
        ({"layer_rate": {"a": 0.5}, "min_channels": 30}, "at most 10 of 40 filters can go"),
        ({"layer_rate": {"a": 0.5}, "min_channels": 30}, "loosen min-channels"),
        ({"layer_rate": {"a": 0.5}, "exclude": ["a"]}, "ask for less, or loosen exclude"),
        ({"layer_rate": {"a": 0.5}, "include": ["b"]}, "ask for less, or loosen include"),
        ({"layer_rate": {"a": 0.01}}, "every share is less than one filter"),
        ({"layer_rate": {"*": 0.0}}, "every share is less than one filter"),
        ({"layer_rate": {"a": 0.1, "b": 0.1}, "rate": 0.9}, "loosen layer-rate"),
    ],
)
def test_what_a_layer_cannot_lose_is_refused(asked: dict[str, Any], words: str) -> None:
    line = refusal(**asked)
    assert words in line
    assert len(line.splitlines()) == 1


def test_what_is_pinned_is_said_so(small: Small) -> None:
    with pytest.raises(OnnxPruneError, match=r"at most 0 of 5 filters can go \(.*output"):
        onnxprune.prune(model(PINNED), **FREE, layer_rate={"z": 0.5})


PINNED = """
net (float[N,3,4,4] x) => (float[N,5,4,4] y) <float[8,3,1,1] w1, float[5,8,1,1] w2> {
  [a] a = Conv(x, w1)
  [z] y = Conv(a, w2)
}
"""


def test_with_samples_no_floor_is_added(small: Small) -> None:
    asked = {"layer_rate": {"*": 0.5}, "round_to": 1, "threads": 1, "compensate": "none"}
    report = onnxprune.prune(small.proto, samples(small), **asked).report
    assert report["stopped"] == "target"
    assert all(2 * layer["removed"] == layer["filters"] for layer in report["layers"])
    floored = onnxprune.prune(small.proto, samples(small), **asked, max_drop=1).report
    assert [layer["removed"] for layer in floored["layers"]] == [
        layer["removed"] for layer in report["layers"]
    ]
    assert floored["stopped"] == "limits"


# Shares of what is included


@pytest.mark.parametrize("control", ["one-shot", "iterative"])
@pytest.mark.parametrize(
    ("names", "whole"), [(["a"], 40), (["c"], 20), (["a", "b"], 60), (["*"], 80)]
)
def test_a_rate_is_a_share_of_what_is_included(names: list[str], whole: int, control: str) -> None:
    asked = {"include": names, "rate": 0.5, "control": control}
    gone = lost(**asked)
    assert sum(gone.values()) == pytest.approx(0.5 * whole, abs=1)
    report = onnxprune.prune(model(NET), **{**FREE, "round_to": 1, **asked}).report
    assert report["rate"] == pytest.approx(0.5, abs=0.02)


def test_a_rate_is_a_share_of_all_where_some_are_excluded() -> None:
    gone = lost(exclude=["a"], rate=0.4)
    assert gone["a"] == 0
    assert sum(gone.values()) == pytest.approx(0.4 * 80, abs=1)
    assert sum(lost(include=["a", "b"], exclude=["a"], rate=0.3).values()) == 18


def test_what_cannot_be_reached_is_said_of_what_is_included() -> None:
    line = refusal(include=["a"], rate=0.99)
    assert "the most that can go is rate 0.975" in line
    assert "loosen include" in line
    line = refusal(exclude=["a"], rate=0.6)
    assert "the most that can go is rate 0.463" in line
    assert "loosen exclude" in line


def test_a_step_says_of_what_the_rate_is_a_share() -> None:
    figures = {"rate": 0.3, "params": 9, "macs": 9}
    assert "30.0 % removed" in step_line(figures, None)
    assert "30.0 % of the included filters removed" in step_line(figures, None, included=True)


def test_a_layer_share_is_of_what_is_left() -> None:
    """20 of 40 are gone: a half of the others are 10, not 20."""
    dead = np.zeros(len(GROUPS), np.bool_)
    dead[np.flatnonzero(GROUPS.group == 0)[:20]] = True
    allowed = Picker(GROUPS, Limits(round_to=1)).allowance(dead, 0.5)
    assert allowed.left[0] == 10
