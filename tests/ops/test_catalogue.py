"""docs/operators.md says what the operator table says."""

import re

import pytest

from onnxprune.ops import ALIGNS, OPS, op
from tests.ops import catalogue
from tests.ops.catalogue import PAGE, page


@pytest.fixture(scope="module")
def written() -> str:
    return page()


def test_the_page_is_current(written: str) -> None:
    assert PAGE.read_text(encoding="utf-8") == written, "run `python tasks.py docs`"


def test_every_operator_is_on_the_page_once(written: str) -> None:
    rows = re.findall(r"^\| ([\w.]+) \| [\d, ]+ \| .+ \| [a-z, ]+ \| .*\|$", written, re.MULTILINE)
    own = [
        f"{domain}.{name}" if domain else name
        for (domain, name), described in OPS.items()
        if described[0].forward.__module__.startswith("onnxprune.ops.")
    ]
    assert sorted(rows) == sorted(own)


def test_operators_of_users_are_not_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "CASES", [])
    monkeypatch.setitem(OPS, ("acme", "Widget"), [])
    op("Widget", ALIGNS, since=(1,), domain="acme")(lambda x: x)
    assert OPS["acme", "Widget"]
    assert "Widget" not in page()
