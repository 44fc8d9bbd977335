"""Samples are made for a model that comes without any; what they are is said."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnxprune
from onnxprune.cli.commands import main
from onnxprune.data import Inputs
from onnxprune.errors import DataError, InvalidValue
from onnxprune.graph.graph import Graph
from onnxprune.search.generated import COUNT, generate, generated_count, parted
from onnxprune.search.settings import Settings
from tests.relevance.test_generated import trained
from tests.support.models import model, run

ONE = {"threads": 1, "device": "cpu", "latency_batch": 1}


def made(text: str, count: int = 4, **asked: Any) -> Any:
    return generate(Graph(model(text)), count, Settings.of(**asked))


@pytest.mark.parametrize(
    ("source", "count"),
    [("generated", COUNT), ("generated:5", 5), ("generated:", None), ("mine:generated", None)],
)
def test_what_asks_for_generated_inputs(source: str, count: int | None) -> None:
    assert generated_count(source) == count
    assert generated_count(Path(source)) is None


def test_none_are_refused() -> None:
    with pytest.raises(InvalidValue, match="N from 1 to 10,000"):
        onnxprune.prune(model(FOLDED), "generated:0", rate=0.5)


def test_a_folder_of_that_name_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("generated").mkdir()
    assert generated_count("generated") is None
    with pytest.raises(DataError, match="no images"):
        onnxprune.prune(model(FOLDED), "generated", rate=0.5)


FOLDED = """
net (float[N,3,12,12] x) => (float[N,4] y) <float[8,3,3,3] w1, float[8] b1, float[4,8,1,1] w2> {
  a = Conv(x, w1, b1)
  r = Relu(a)
  b = Conv(r, w2)
  g = GlobalAveragePool(b)
  y = Flatten(g)
}
"""


@pytest.mark.parametrize(
    ("shape", "dtype", "preprocess", "low", "high"),
    [
        ("3,16,16", "float", "unit", 0, 1),
        ("16,16,3", "float", "tf", -1, 1),
        ("1,16,16", "float", "raw", 0, 255),
        ("3,16,16", "uint8", "auto", 0, 255),
        ("3,16,16", "float", "imagenet", -2.2, 2.7),
        ("7,16", "float", "auto", -9, 9),
        ("7", "float", "auto", -9, 9),
    ],
)
def test_noise_has_the_range_that_the_model_takes(
    shape: str, dtype: str, preprocess: str, low: float, high: float
) -> None:
    text = f"net ({dtype}[N,{shape}] x) => (float[N,{shape}] y) {{ y = Cast<to = 1>(x) }}"
    found = made(text, preprocess=preprocess)
    assert found.x.shape == (4, *map(int, shape.split(",")))
    assert found.generated == "noise"
    assert not found.labelled
    assert low <= found.x.min() < found.x.max() <= high
    assert found.x.max() - found.x.min() > 0.4 * min(high - low, 4)


def test_several_inputs_are_made_by_name() -> None:
    text = (
        "net (float[N,3,8,8] x, float[N,5] z) => (float[N,5] y, float[N,3,8,8] r) "
        "{ y = Relu(z) r = Relu(x) }"
    )
    found = made(text)
    assert isinstance(found.x, Inputs)
    assert {name: one.shape for name, one in found.x.arrays.items()} == {
        "x": (4, 3, 8, 8),
        "z": (4, 5),
    }


def test_numbers_of_words_cannot_be_made_up() -> None:
    text = "net (int64[N,5] ids) => (float[N,5] y) { y = Cast<to = 1>(ids) }"
    with pytest.raises(DataError, match=r"input 'ids': takes int64 \[5\].*give --data"):
        made(text)


def test_the_unpruned_model_is_what_they_are_judged_by(caplog: pytest.LogCaptureFixture) -> None:
    proto, x = trained()
    with caplog.at_level(logging.INFO):
        result = onnxprune.prune(proto, "generated:16", macs=0.7, round_to=1, **ONE)
    report = result.report
    assert (report["samples"], report["generated"]) == (8, "statistics")
    assert report["metric"] == "fidelity"
    assert report["before"]["accuracy"]["harmonic"] == 1
    assert "16 inputs made to have the statistics that 2 batch normalisations" in caplog.text
    again = onnxprune.prune(proto, "generated:16", macs=0.7, round_to=1, **ONE)
    assert again.plan == result.plan
    assert run(result.model, x)[0].shape == run(proto, x)[0].shape


def test_a_floor_stops_before_the_network_is_destroyed() -> None:
    proto, _ = trained()
    report = onnxprune.prune(proto, "generated:16", aim="macs", round_to=1, **ONE).report
    assert report["stopped"] in ("floor", "limits")
    assert report["after"]["accuracy"]["harmonic"] >= 0.95 - 1e-9


def test_noise_alone_is_no_floor() -> None:
    with pytest.raises(DataError, match=r"agreement on noise says little of images.*any images"):
        onnxprune.prune(model(FOLDED), "generated:8", preprocess="unit", **ONE)
    assert onnxprune.prune(model(FOLDED), "generated:8", preprocess="unit", rate=0.1, **ONE)


def test_other_inputs_judge_than_those_that_are_fitted() -> None:
    data = made(FOLDED, 7)
    work, judge = parted(data)
    assert (len(work), len(judge)) == (4, 3)
    assert not any((one == other).all() for one in work.x for other in judge.x)
    one = made(FOLDED, 1)
    assert parted(one) == (one, one)
    given = replace(data, generated="")
    assert parted(given) == (given, given)
    assert parted(None) == (None, None)


def test_noise_is_said_to_be_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(model(FOLDED), "m.onnx")
    words = ["prune", "m.onnx", "-o", "o.onnx", "--data", "generated:8", "--rate", "0.3"]
    more = ["--threads", "1", "--run-dir", "run", "--for", "rate", "--preprocess", "unit"]
    found = CliRunner().invoke(main, [*words, *more])
    assert found.exit_code == 0, found.output
    assert "warning: samples: the model stores no statistics of its inputs" in found.output
    assert "measured on 4 inputs of smooth noise: images may tell otherwise" in found.output
    assert "4 inputs of smooth noise" in Path("run/report.html").read_text()
    again = CliRunner().invoke(main, [*words, *more, "--resume"])
    assert again.exit_code == 0, again.output


def test_the_seed_makes_other_inputs() -> None:
    one, same, other = (made(FOLDED, seed=seed).x for seed in (0, 0, 1))
    assert (one == same).all()
    assert not np.allclose(one, other)
