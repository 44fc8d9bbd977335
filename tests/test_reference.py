"""docs/python.md says what the docstrings say."""

import re

import pytest

import onnxprune
from tests.support.reference import PAGE, page


@pytest.fixture(scope="module")
def written() -> str:
    return page()


def test_the_page_is_current(written: str) -> None:
    assert PAGE.read_text(encoding="utf-8") == written, "run `python tasks.py docs`"


def test_every_public_name_is_on_the_page_once(written: str) -> None:
    assert sorted(re.findall(r"^### (\w+)$", written, re.MULTILINE)) == sorted(onnxprune.__all__)


def test_errors_shapes_and_fields_are_shown(written: str) -> None:
    apply = written.partition("### apply\n")[2].partition("###")[0]
    assert "apply(\n    model: ModelSource,\n    plan: Plan | str | Path,\n" in apply
    assert "* *Raises*: InvalidPlan when" in apply
    assert "* *Shapes*: x `[n, ...]`" in written
    assert "    max_layer_rate: float = 1.0," in written
    assert "InvalidModel" in written
