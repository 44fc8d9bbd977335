"""Values of options: shares in percent, and what the shell completes."""

from collections.abc import Sequence
from pathlib import Path

import click
import onnx
import pytest
from click.shell_completion import ShellComplete

from onnxprune.checks import Number
from onnxprune.cli.commands import main
from onnxprune.cli.types import Given
from onnxprune.compensate import METHODS
from onnxprune.data import PRESETS
from onnxprune.evaluation import METRIC_NAMES as METRICS
from onnxprune.relevance import CRITERION_NAMES as CRITERIA
from onnxprune.search import CONTROLLER_NAMES
from tests.support.models import model

NET = """
net (float[N,2,4,4] x) => (float[N,3,4,4] y) <float[5,2,1,1] w, float[3,5,1,1] head> {
  one = Conv(x, w)
  y = Conv(one, head)
}
"""


SHARE = Given(Number(above=0, share=True))


@pytest.mark.parametrize(
    ("text", "share"), [("50%", 0.5), ("50 %", 0.5), ("0.5", 0.5), ("100%", 1.0), ("2e6", 2e6)]
)
def test_shares_are_read(text: str, share: float) -> None:
    assert SHARE.convert(text, None, None) == share


@pytest.mark.parametrize("text", ["150%", "-1%", "0%", "nan%", "%", "half", "nan", "50%%"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(click.UsageError):
        SHARE.convert(text, None, None)


def test_a_time_has_no_percent() -> None:
    with pytest.raises(click.UsageError):
        Given(Number(above=0)).convert("50%", None, None)


def complete(*words: str) -> list[str]:
    """What Tab offers after the last of some words."""
    *given, incomplete = words
    found = ShellComplete(main, {}, "onnxprune", "_").get_completions(given, incomplete)
    return [item.value for item in found]


def known(names: Sequence[str]) -> list[str]:
    return [name for name in names if name != "module:function"]


@pytest.mark.parametrize(
    ("option", "names"),
    [
        ("--control", known(CONTROLLER_NAMES)),
        ("--criterion", known(CRITERIA)),
        ("--metric", known(METRICS)),
        ("--compensate", ["auto", *METHODS]),
        ("--preprocess", ["auto", *PRESETS]),
    ],
)
def test_names_of_a_registry_are_completed(option: str, names: list[str]) -> None:
    assert complete("prune", "m.onnx", option, "") == names
    last = names[-1]
    assert complete("prune", option, last[:-1]) == [n for n in names if n.startswith(last[:-1])]


def test_rules_are_completed() -> None:
    assert complete("score", "--criterion", "lrp:z") == ["lrp:zplus"]


def test_the_parts_of_a_method_are_completed() -> None:
    assert complete("curve", "--method", "one") == ["one-shot"]
    assert complete("curve", "--method", "one-shot/tay") == ["one-shot/taylor"]
    assert complete("curve", "--method", "one-shot/lrp/b") == ["one-shot/lrp/bias"]
    assert complete("curve", "--method", "one-shot/lrp/bias/") == []
    assert "one-shot/module:function" not in complete("curve", "--method", "one-shot/")


@pytest.mark.parametrize("option", ["--include", "--exclude"])
def test_convolutions_of_the_model_are_completed(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(model(NET), "m.onnx")
    assert complete("prune", "m.onnx", option, "") == ["one", "y"]
    assert complete("prune", "--rate", "0.5", "m.onnx", option, "o") == ["one"]
    assert complete("prune", "m.onnx", option, "head") == ["head"]  # the name of a weight


@pytest.mark.parametrize("arguments", [(), ("missing.onnx",), ("bad.onnx",)])
def test_without_a_model_no_convolution_is_completed(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.onnx").write_text("no model")
    assert complete("prune", *arguments, "--exclude", "") == []
