"""A condition says what Python would say of the same figures, and reads nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.errors import DataError, OnnxPruneError, UnknownName
from onnxprune.gate import LONGEST, NAMES, Condition, figures

ROOT = Path(__file__).resolve().parent.parent

values = st.floats(-10, 10, allow_nan=False).map(lambda value: round(value, 3))
numbers = st.recursive(
    values.map(str) | st.sampled_from(NAMES),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({' '.join(t)})"),
    max_leaves=3,
)
comparisons = st.tuples(numbers, st.sampled_from("> >= < <= == !=".split()), numbers).map(" ".join)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(("and", "or")), inner).map(" ".join),
        inner.map(lambda one: f"not {one}"),
        inner.map(lambda one: f"({one})"),
    ),
    max_leaves=4,
).filter(lambda text: any(name in text for name in NAMES) and len(text) <= LONGEST)


def side(scores: dict[str, Any], **amounts: Any) -> dict[str, Any]:
    seen = [score for score in scores.values() if score is not None]
    mean = sum(seen) / len(seen)
    accuracy = {"mean": mean, "harmonic": mean / 2, "per_class": scores}
    return {"size_bytes": 4000, "latency_ms": 2.0, "accuracy": accuracy, **amounts}


COMPARISON = {
    "before": side({"a": 1.0, "b": 0.5, "c": None}, params=100, macs=1000, filters=8),
    "after": side({"a": 0.75, "b": 0.5, "c": None}, params=50, macs=None, filters=6),
    "agreement": 0.9,
    "samples": 24,
}


@given(conditions, st.lists(values, min_size=len(NAMES), max_size=len(NAMES)))
def test_a_condition_holds_where_python_says_so(text: str, found: list[float]) -> None:
    known = dict(zip(NAMES, found, strict=True))
    assert bool(Condition(text).reasons(known)) == eval(text, {"__builtins__": {}}, known)


@given(st.text(max_size=40))
def test_whatever_is_given_is_read_or_refused(text: str) -> None:
    try:
        Condition(text)
    except OnnxPruneError as error:
        assert len(str(error).splitlines()) <= 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "harmonic_drop",
        "1 < 2",
        "harmonic_drop > 'a'",
        "harmonic_drop > True",
        "harmonic_drop > 1e999",
        f"harmonic_drop > {'9' * 400}",
        "harmonic_drop ** 9 > 1",
        "harmonic_drop > 1 if latency_ratio > 1 else 2",
        "harmonic_drop is 1",
        "harmonic_drop in (1, 2)",
        "harmonic_drop.real > 1",
        "abs(harmonic_drop) > 1",
        "(lambda: 1)() > harmonic_drop",
        "[x for x in harmonic_drop]",
        "harmonic_drop[0] > 1",
        "__import__('os').system('true') > harmonic_drop",
        "harmonic_drop := 1",
        "harmonic_drop > 1; 2",
        "harmonic_drop > \0",
        f"{'(' * LONGEST}harmonic_drop > 1",
        f"harmonic_drop > {'-' * LONGEST}1",
    ],
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(OnnxPruneError, match=r"condition|figure"):
        Condition(text)


def test_an_unknown_figure_is_refused_with_all_and_the_nearest() -> None:
    with pytest.raises(UnknownName) as caught:
        Condition("harmonic_drop > 0 and latncy_ratio > 1")
    assert all(name in str(caught.value) for name in NAMES)
    assert str(caught.value).endswith("did you mean 'latency_ratio'?")


def test_the_alternatives_that_hold_are_named_with_their_figures() -> None:
    condition = Condition(
        "(params_ratio < 1 or samples < 9) or harmonic_drop > 1.5% or size_ratio>2"
    )
    assert condition.reasons(figures(COMPARISON)) == [
        "params_ratio < 1 (params_ratio is 0.5)",
        "harmonic_drop > 0.015 (harmonic_drop is 0.0625)",
    ]
    both = Condition("samples > 20 and not latency_ratio > size_ratio")
    assert both.reasons(figures(COMPARISON)) == [
        "samples > 20 and (not latency_ratio > size_ratio) "
        "(samples is 24 and latency_ratio is 1 and size_ratio is 1)"
    ]


def test_figures_are_those_of_the_comparison() -> None:
    found = figures(COMPARISON)
    assert list(found) == list(NAMES)
    expected = {"params_ratio": 0.5, "filters_ratio": 0.75, "size_after": 4000, "latency_before": 2}
    expected |= {"mean_drop": 0.125, "worst_class_after": 0.5, "worst_class_drop": 0.25}
    assert {name: found[name] for name in expected} == expected
    assert found["macs_ratio"] is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("macs_ratio > 2 or samples > 1", "macs_ratio is not known here"),
        ("samples > 1 or macs_after > 2", "macs_after is not known here"),
        ("samples / (samples - 24) > 1", "'samples - 24' is 0"),
    ],
)
def test_what_is_not_known_fails(text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        Condition(text).reasons(figures(COMPARISON))


@pytest.mark.parametrize(("share", "is_above"), [("1%", True), ("3 %", False), (".5%", True)])
def test_a_share_may_be_in_percent(share: str, is_above: bool) -> None:
    condition = Condition(f"harmonic_drop > {share}")
    assert bool(condition.reasons({"harmonic_drop": 0.02})) == is_above


def test_a_figure_that_is_no_number_is_not_known() -> None:
    with pytest.raises(DataError, match="harmonic_drop is not known"):
        Condition("harmonic_drop > 0.1").reasons({"harmonic_drop": float("nan")})


def test_the_reference_lists_every_figure() -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    section = text.partition("## Conditions")[2].partition("\n## ")[0]
    assert [name for name in NAMES if f"`{name}`" not in section] == []


def test_no_figures_are_made_up() -> None:
    assert set(figures({}).values()) == {None}
    assert json.loads(json.dumps(figures(COMPARISON))) == figures(COMPARISON)
