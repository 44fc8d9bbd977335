"""Curves start at the model as it is and end where nothing is left; areas are those of geometry."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto

import onnxprune
from onnxprune.comparison import LAST_RATE, area, compare, draw_curve, parse_method
from onnxprune.data import Data
from onnxprune.errors import NOTICE, DataError, InvalidModel, UnknownName
from onnxprune.graph import save_model
from onnxprune.search.settings import Settings
from onnxprune.search.target import Target
from tests.support.small_net import Small

accuracies = st.lists(st.floats(0, 1), min_size=2, max_size=8)
PLAIN = Settings(criterion="magnitude", threads=1)


@given(accuracies)
def test_the_area_is_that_under_the_line(accuracy: list[float]) -> None:
    rate = np.linspace(0, 1, len(accuracy)).tolist()
    fine = np.linspace(0, LAST_RATE, 20_001)
    expected = np.interp(fine, rate, accuracy).mean()
    assert area(rate, accuracy) == pytest.approx(expected, abs=1e-3)


@given(st.floats(0, 1))
def test_a_flat_curve_has_its_height_as_area(height: float) -> None:
    assert area([0.0, 0.5, 0.97], [height] * 3) == pytest.approx(height)


def test_a_curve_that_ends_early_keeps_its_last_accuracy() -> None:
    assert area([0.0, 0.475], [1.0, 0.0]) == pytest.approx(0.25)
    assert area([0.0, 0.475], [1.0, 0.5]) == pytest.approx(0.375 + 0.25)


def test_a_saving_that_was_measured_and_fell_counts_as_the_largest_before_it() -> None:
    fell = area([0.0, 0.5, 0.4, 0.95], [1.0, 0.8, 0.6, 0.6])
    assert fell == area([0.0, 0.5, 0.5, 0.95], [1.0, 0.8, 0.6, 0.6])


def test_a_method_is_read() -> None:
    read = parse_method("iterative/lrp:zplus/bias", PLAIN)
    assert (read.control, read.criterion, read.compensate) == ("iterative", "lrp:zplus", "bias")
    assert parse_method("one-shot/lrp", PLAIN).compensate == "none"


@pytest.mark.parametrize("method", ["lrp", "a/b/c/d", "", "nonsense/lrp"])
def test_a_wrong_method_is_refused_with_the_choices(method: str) -> None:
    with pytest.raises(UnknownName, match="one-shot, iterative, accuracy-aware"):
        parse_method(method, PLAIN)


@pytest.mark.parametrize("method", ["one-shot/magnitude", "accuracy-aware/lrp"])
def test_a_curve_goes_from_the_model_to_almost_nothing(small: Small, method: str) -> None:
    samples = Data(small.x, small.y, ("a", "b", "c"))
    seen = []
    curve = draw_curve(
        small.proto, samples, samples, method, PLAIN, on_point=lambda *p: seen.append(p)
    )
    assert (curve.rate[0], curve.mean[0], curve.harmonic[0]) == (0.0, 1.0, 1.0)
    assert curve.rate == sorted(set(curve.rate))
    assert curve.rate[-1] >= 12 / 14  # one filter of each layer stays
    assert curve.mean[-1] < 1.0
    assert all(h <= m + 1e-12 for h, m in zip(curve.harmonic, curve.mean, strict=True))
    assert seen == [(method, r, m) for r, m in zip(curve.rate, curve.mean, strict=True)]
    content = curve.to_json()
    assert content["auc_mean"] == area(curve.rate, curve.mean)
    assert {"rate", "mean", "harmonic", "auc_harmonic"} <= content.keys()


def test_targets_and_floors_of_a_run_do_not_end_a_curve(small: Small) -> None:
    samples = Data(small.x, small.y, ("a", "b", "c"))
    asked = Settings.of(criterion="magnitude", threads=1, rate=0.1, min_accuracy=0.99)
    curve = draw_curve(small.proto, samples, samples, "one-shot/magnitude", asked)
    assert curve.rate[-1] >= 12 / 14
    assert asked.target == Target(rate=0.1)


def test_test_samples_are_not_cut_to_the_reference_size(small: Small) -> None:
    samples = Data(small.x, small.y, ("a", "b", "c"))
    wrong = Data(small.x, (small.y + 1) % 3, ("a", "b", "c"))
    first = Data(
        np.concatenate([small.x, small.x]), np.concatenate([small.y, wrong.y]), ("a", "b", "c")
    )
    asked = Settings(criterion="magnitude", threads=1, per_class=2)
    curve = draw_curve(small.proto, samples, first, "one-shot/magnitude", asked)
    assert curve.mean[0] == pytest.approx(0.5)


def test_test_samples_must_fit(small: Small) -> None:
    samples = Data(small.x, small.y, ("a", "b", "c"))
    other = Data(small.x[:, :, :4], small.y, ("a", "b", "c"))
    with pytest.raises(DataError, match=r"a sample is \[1, 4, 8\], expected \[1, 8, 8\]"):
        draw_curve(small.proto, samples, other, "one-shot/magnitude", PLAIN)


@pytest.mark.parametrize("wrong", ["before", "after"])
def test_the_file_that_onnxruntime_refuses_is_named(
    small: Small, wrong: str, tmp_path: Path
) -> None:
    """Unpruned or pruned, as `compare` is given them."""
    refused = ModelProto()
    refused.CopyFrom(small.proto)
    refused.graph.node[-1].op_type = "NoSuchOperator"
    refused.graph.node[-1].domain = "own"
    refused.opset_import.add(domain="own", version=1)
    paths = {name: tmp_path / f"{name}.onnx" for name in ("before", "after")}
    for name, path in paths.items():
        save_model(refused if name == wrong else small.proto, path)
    samples = Data(small.x, small.y, ("a", "b", "c"))
    with pytest.raises(InvalidModel, match=rf"{wrong}\.onnx: ") as caught:
        compare(*map(str, paths.values()), samples, threads=1, trust_baseline=True)
    assert str(caught.value).count(".onnx") == 1


def near(outputs: dict[str, np.ndarray], targets: list[np.ndarray], _: np.ndarray) -> float:
    return float(np.exp(-((outputs["y"] - np.stack(targets)) ** 2).mean()))


def test_of_pictures_nothing_is_said_about_classes(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["": 17]>
        g (float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y) { y = Sigmoid (x) }"""
    x = np.random.default_rng(0).random((6, 3, 8, 8), np.float32)
    np.savez(tmp_path / "pictures.npz", x=x, y=x)
    model, metric = onnx.parser.parse_model(text), f"{Path(__file__)}:near"
    told = compare(model, model, tmp_path / "pictures.npz", metric=metric, threads=1)
    assert told["agreement"] is None


def test_what_ranks_filters_is_said_where_they_are_ranked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A metric of one's own judges; kinds of outputs only say which filters go first."""
    text = """<ir_version: 9, opset_import: ["": 17]>
        g (float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y) <float[9, 3, 1, 1] a, float[3, 9, 1, 1] b>
        { h = Conv (x, a) r = Relu (h) y = Conv (r, b) }"""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(text)
    for name, shape in {"a": (9, 3, 1, 1), "b": (3, 9, 1, 1)}.items():
        values = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    x = rng.random((12, 3, 8, 8), np.float32)
    np.savez(tmp_path / "pictures.npz", x=x, y=x)
    metric, data = f"{Path(__file__)}:near", tmp_path / "pictures.npz"
    with caplog.at_level(NOTICE, "onnxprune"):
        compare(model, model, data, metric=metric, threads=1)
        assert "output 'y'" not in caplog.text
        options: dict[str, Any] = {"macs": 0.9, "round_to": 1, "compensate": "none", "threads": 1}
        onnxprune.prune(model, data, metric=metric, **options)
    assert "output 'y' [N, 3, 8, 8]: which filters go first is told by it as numbers" in caplog.text
    assert f"how many, by {metric}" in caplog.text and "has to stay" not in caplog.text
