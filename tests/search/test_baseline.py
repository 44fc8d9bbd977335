"""The baseline is looked at first: samples that the model does not recognise decide nothing."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.comparison import draw_curve
from onnxprune.data import Data
from onnxprune.data.presets import PRESETS
from onnxprune.errors import DataError, UnreachableTarget
from onnxprune.evaluation.accuracy import Accuracy
from onnxprune.search.settings import Settings
from onnxprune.search.target import Floor
from tests.support.coloured import NAMES, folder, network, pixels
from tests.support.models import model, run
from tests.support.runs import FREE, samples
from tests.support.simulated import NOTHING, Simulated, end
from tests.support.small_net import Small

QUICK: dict[str, Any] = {"threads": 1, "device": "cpu"}


def arrays(preset: str = "unit", each: int = 6) -> tuple[Any, Any]:
    x, y = pixels(each)
    return PRESETS[preset](x).transpose(0, 3, 1, 2), y


def stopped(proto: onnx.ModelProto, data: Any, **options: Any) -> str:
    """What a run says of samples that its model does not recognise, in one line."""
    with pytest.raises(DataError, match="the unpruned model is right for") as caught:
        onnxprune.prune(proto, data, **QUICK, **options)
    line = str(caught.value)
    assert len(line.splitlines()) == 1 and len(line) < 700
    assert "; --trust-baseline (trust_baseline=True in Python) goes on" in line
    return line


# What is said


@pytest.mark.parametrize("preset", ["unit", "imagenet", "caffe", "tf", "raw"])
def test_the_preset_that_fits_is_named(preset: str, tmp_path: Path) -> None:
    wrong = "raw" if preset != "raw" else "tf"
    line = stopped(network(preset), folder(tmp_path / "set"), preprocess=wrong)
    assert f"what fits: --preprocess {preset} (36 of 36)" in line
    assert "of 36 samples; guessing is 6" in line


@pytest.mark.parametrize("preset", ["unit", "imagenet", "tf", "raw"])
@pytest.mark.parametrize("given", ["unit", "imagenet", "tf", "raw"])
def test_the_range_of_arrays_is_named(preset: str, given: str) -> None:
    if preset == given or (preset, given) == ("tf", "imagenet"):
        onnxprune.compare(network(preset), network(preset), arrays(given), **QUICK)
        return
    line = stopped(network(preset), arrays(given))
    assert f"what fits: pixels scaled as '{preset}' scales them (36 of 36)" in line


def test_the_order_of_channels_is_named(tmp_path: Path) -> None:
    other = replace(PRESETS["unit"], bgr=True)
    line = stopped(network(other), folder(tmp_path / "set"), preprocess="unit")
    assert "--preprocess unit with the channels as BGR (36 of 36)" in line


def test_a_layout_that_was_reshaped_is_named() -> None:
    x, y = arrays()
    reshaped = x.transpose(0, 2, 3, 1).reshape(x.shape)
    assert "the pixels transposed, not reshaped, to [C, H, W] (36 of 36)" in stopped(
        network(), (reshaped, y)
    )


def test_the_order_of_classes_is_named(tmp_path: Path) -> None:
    line = stopped(network(), folder(tmp_path / "set", names=NAMES), preprocess="unit")
    assert "the classes in another order: 'blue' is its class 0" not in line
    assert "'dark' is its class 3" in line and "(36 of 36)" in line


def test_two_classes_in_another_order_are_enough() -> None:
    x, y = arrays()
    swapped = np.where(y == 0, 1, np.where(y == 1, 0, y))
    line = stopped(network(), Data(x, swapped, NAMES))
    assert "'blue' is its class 1, 'brown' is its class 0 (36 of 36)" in line


def test_where_nothing_fits_that_is_said() -> None:
    x, y = arrays()
    line = stopped(network(), (np.random.default_rng(0).random(x.shape, np.float32), y))
    assert "that was tried fits" in line and "output 'y' is class scores" in line


def test_an_embedding_is_no_classifier() -> None:
    proto = model("""
    embedding (float[N,3,8,8] x) => (float[N,64] y) <float[64,3,3,3] w> {
      a = Conv(x, w)
      p = GlobalAveragePool(a)
      y = Flatten(p)
    }
    """)
    line = stopped(proto, arrays())
    assert "guessing is" in line
    assert "output 'y' may be an embedding, which --metric fidelity judges without labels" in line
    assert "embedding" not in stopped(network(), arrays("imagenet"))


def test_another_output_that_is_class_scores_is_named() -> None:
    proto = network()
    (head,) = (node for node in proto.graph.node if node.op_type == "Flatten")
    boxes = onnx.helper.make_node("Slice", [head.output[0], "zero", "four", "one"], ["boxes"])
    proto.graph.node.append(boxes)
    for name, value in (("zero", 0), ("four", 4), ("one", 1)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([value]), name))
    first = onnx.helper.make_tensor_value_info("boxes", onnx.TensorProto.FLOAT, ["N", 4])
    scores = proto.graph.output.pop()
    proto.graph.output.extend([first, scores])
    x, y = arrays()
    line = stopped(proto, (x[y < 4], y[y < 4]))
    assert "what fits: output 'y' in place of 'boxes' (24 of 24)" in line


def test_integers_of_a_regression_are_no_classes() -> None:
    x, _ = arrays()
    ages = np.random.default_rng(0).integers(20, 60, len(x)).astype(np.float32)
    with pytest.raises(DataError, match=r"label \d+, expected 0 to 5"):
        onnxprune.prune(network(), (x, ages), **QUICK)


# Where it stops, and where it does not


def test_curve_and_compare_stop_as_well() -> None:
    x, y = arrays("raw")
    with pytest.raises(DataError, match="what fits: pixels scaled as 'unit'"):
        onnxprune.compare(network(), network(), (x, y), **QUICK)
    with pytest.raises(DataError, match="what fits: pixels scaled as 'unit'"):
        draw_curve(network(), (x, y), (x, y), "one-shot/magnitude", Settings.of(**QUICK))
    with pytest.raises(DataError, match="what fits: pixels scaled as 'unit'"):
        draw_curve(network(), arrays(), (x, y), "one-shot/magnitude", Settings.of(**QUICK))


def test_trust_goes_on() -> None:
    x, y = arrays("raw")
    ask: dict[str, Any] = {"trust_baseline": True, **QUICK}
    assert onnxprune.compare(network(), network(), (x, y), **ask)["samples"] == 36
    result = onnxprune.prune(network(), (x, y), rate=0.2, control="one-shot", **ask)
    assert result.report["rate"] >= 0.2
    draw_curve(network(), (x, y), (x, y), "one-shot/magnitude", Settings.of(**ask))


def test_samples_that_decide_nothing_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="onnxprune"):
        onnxprune.prune(network(), arrays("raw"), rate=0.2, compensate="none", **FREE)
    assert "the unpruned model is right for" in caplog.text
    stopped(network(), arrays("raw"), rate=0.2, control="one-shot", criterion="magnitude")


def test_a_run_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    stopped(network(), arrays("raw"), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_few_samples_that_are_all_right_will_do(small: Small) -> None:
    few = Data(small.x[[0, 8]], small.y[[0, 8]], ("a", "b", "c"))
    result = onnxprune.prune(small.proto, few, rate=0.2, control="one-shot", threads=1)
    assert result.report["before"]["accuracy"]["mean"] == 1


def nothing_right(outputs: Any, targets: Any) -> Any:
    return np.zeros(int(targets.max()) + 1)


def half_right(outputs: Any, targets: Any) -> Any:
    return np.full(int(targets.max()) + 1, 0.5)


def test_an_own_metric_says_itself_what_is_right(small: Small) -> None:
    ask: dict[str, Any] = {"rate": 0.2, "control": "one-shot", "threads": 1}
    with pytest.raises(DataError, match="nothing_right': is 0 for every class of the unpruned"):
        onnxprune.prune(small.proto, samples(small), metric=nothing_right, **ask)
    onnxprune.prune(small.proto, samples(small), metric=half_right, **ask)


def nothing_known(outputs: Any, targets: Any) -> Any:
    return np.full(int(np.max(targets)) + 1, np.nan)


def no_number(outputs: Any, targets: Any) -> Any:
    return np.nan


@pytest.mark.parametrize("trusted", [False, True])
def test_a_metric_that_returns_only_nan_measures_nothing(small: Small, trusted: bool) -> None:
    ask: dict[str, Any] = {"threads": 1, "trust_baseline": trusted}
    for labelled, metric in ((samples(small), nothing_known), (small.x, no_number)):
        said = rf"{metric.__name__}': returns only NaN for the unpruned model, so that nothing is"
        with pytest.raises(DataError, match=said):
            onnxprune.prune(small.proto, labelled, metric=metric, rate=0.2, **ask)
        with pytest.raises(DataError, match=said):
            onnxprune.compare(small.proto, small.proto, labelled, metric=metric, **ask)


def test_label_maps_are_looked_at_pixel_by_pixel() -> None:
    proto = model("""
    net (float[N,3,8,8] x) => (float[N,3,8,8] y) <float[8,3,1,1] w, float[3,8,1,1] v> {
      a = Conv(x, w)
      y = Conv(a, v)
    }
    """)
    x = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)
    maps = run(proto, x)[0].argmax(1)
    assert onnxprune.compare(proto, proto, (x, maps), **QUICK)["samples"] == 8
    shuffled = np.random.default_rng(0).permutation(maps.ravel()).reshape(maps.shape)
    with pytest.raises(DataError, match=r"right for .* pixels; guessing is"):
        onnxprune.compare(
            proto,
            proto,
            (x, shuffled),
            **QUICK,
        )


# A floor that could not break


def hits(*counts: float, each: int = 20) -> Accuracy:
    right = np.array(counts)
    return Accuracy(right, np.full(len(right), float(each)), np.maximum(right, 0.1))


class Losing(Simulated):
    """Nets whose first class is never right, and which lose a hit of another with each filter."""

    def __init__(self, **asked: Any) -> None:
        super().__init__(lambda dead, corrected: 1.0, **asked)

        def evaluate(net: Any) -> Accuracy:
            lost = 0.0 if net is self.task.graph.model else float(net.dead.sum())
            return hits(0, 20 - lost / 3, 20 - lost / 3, 20 - lost / 3)

        object.__setattr__(self.task, "evaluate", evaluate)


@pytest.mark.parametrize("control", ["one-shot", "iterative", "accuracy-aware"])
def test_a_floor_holds_though_a_class_is_never_right(control: str) -> None:
    nets = Losing(floor=Floor(max_drop=0.05))
    assert nets.unpruned is not None and nets.unpruned.harmonic == 0
    state = end(nets, control)
    assert state.stopped == "floor"
    lost = nets.unpruned.shrunk_harmonic - state.accuracy.shrunk_harmonic  # type: ignore[union-attr]
    assert 0 < state.dead.sum() < len(NOTHING) / 3
    assert lost <= 0.05


def test_a_least_accuracy_is_asked_of_shrunk_shares_too() -> None:
    assert end(Losing(floor=Floor(min_accuracy=0.2))).stopped == "floor"
    with pytest.raises(UnreachableTarget, match=r"has a harmonic mean of 0\.2255 on"):
        end(Losing(floor=Floor(min_accuracy=0.9)))


def test_a_floor_that_allows_everything_is_refused() -> None:
    nets = Simulated(lambda dead, corrected: 0.004, floor=Floor(max_drop=0.01))
    with pytest.raises(UnreachableTarget, match="all of it may be lost; give a max-drop below"):
        end(nets)
    assert (
        end(Simulated(lambda dead, corrected: 0.5, floor=Floor(max_drop=1.0))).stopped == "limits"
    )


def test_the_report_keeps_the_plain_figure() -> None:
    """One image of each class, a third of them wrong: that is no error, and its floor holds."""
    x, y = arrays("unit", each=1)
    y = np.array([0, 1, 2, 3, 4, 4])
    wrong = Data(np.concatenate([x] * 4), np.concatenate([y] * 4), NAMES)
    result = onnxprune.prune(network(), wrong, max_drop=0.05, **QUICK)
    assert result.report["stopped"] == "floor"
    assert result.report["after"]["params"] > 20
