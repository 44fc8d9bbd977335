"""GitHub shows a comparison as the terminal does, and names as they are."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.report import markdown
from onnxprune.report.pull_request import SPECIAL, escape
from onnxprune.text import harmless


def comparison(**other: Any) -> dict[str, Any]:
    def side(params: int, *scores: float | None) -> dict[str, Any]:
        accuracy = {"mean": 0.75, "harmonic": 0.5}
        named = dict(zip(("cat|dog", "<b>", "c_d"), scores, strict=True))
        amounts = {"params": params, "macs": None, "filters": 8, "size_bytes": 2_000_000}
        return {**amounts, "latency_ms": 1.5, "accuracy": {**accuracy, "per_class": named}}

    sides = {"before": side(2000, 1.0, 0.5, None), "after": side(1000, 0.75, 0.5, None)}
    return {**sides, "agreement": 0.875, "metric": "top-1", "samples": 1234, **other}


def cells(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]


def test_the_tables_hold_figures_and_classes() -> None:
    text = markdown(comparison())
    rows = [[cell.strip() for cell in line] for line in cells(text)]
    assert {len(row) for row in rows} == {4}
    assert ["Parameters", "2,000", "1,000", "\u221250.0 %"] in rows
    assert ["Same class given", "", "", "87.5 %"] in rows
    assert [r"cat\|dog", "100.0 %", "75.0 %", "\u221225.0 points"] in rows
    assert [r"\<b\>", "50.0 %", "50.0 %", "+0.0 points"] in rows
    assert not any("c" in row[0] and "d" in row[0] and "cat" not in row[0] for row in rows)
    assert "1,234 samples" in text
    assert text.count("<details>") == text.count("</details>") == 1
    assert re.search(r"</summary>\n\n\|", text), "Markdown in HTML needs an empty line before it"


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_class_with_one_score_is_not_listed(side: str) -> None:
    found = comparison()
    found[side]["accuracy"]["per_class"]["c_d"] = 0.5
    assert cells(markdown(found)) == cells(markdown(comparison()))


def test_a_verdict_comes_first() -> None:
    assert "ed**" not in markdown(comparison())
    assert markdown(comparison(), []).startswith("**Passed**\n\n|")
    failed = markdown(comparison(), ["a > 1 (a is 2)", "b < 1"])
    assert failed.startswith("**Failed:** `a > 1 (a is 2)`; `b < 1`\n\n|")


def test_a_model_that_became_slower_is_said_to_be() -> None:
    found = comparison()
    found["after"]["latency_ms"] = 3.0
    assert "The pruned model is slower" in markdown(found)
    assert "slower" not in markdown(comparison())


def test_agreement_alone_has_parts_and_no_classes() -> None:
    text = markdown(comparison(metric="fidelity"))
    assert "part of the outputs" in text
    assert "Same class" not in text


@given(st.text(max_size=20))
def test_no_name_is_markup(name: str) -> None:
    text = escape(name).replace("@<!-- -->", "@")
    assert len(text.splitlines()) <= 1
    assert re.sub(r"\\(.)", r"\1", text) == " ".join(harmless(name).split())
    assert SPECIAL.search(re.sub(r"\\.", "", text)) is None


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("https://a.bc", r"https\://a.bc"),
        ("www.a.bc", r"www\.a.bc"),
        ("0.5: a", "0.5: a"),
        ("@all", "@<!-- -->all"),
    ],
)
def test_a_name_is_no_link_and_calls_nobody(name: str, shown: str) -> None:
    assert escape(name) == shown


@pytest.mark.parametrize("name", ["a|b", "a\\|b", "|"])
def test_a_name_never_opens_a_cell(name: str) -> None:
    assert re.search(r"(?<!\\)(\\\\)*\|", escape(name)) is None
