"""Accuracies are those one counts by hand, logits those of ONNX's own reference."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx.reference
import onnxruntime
import pytest

import onnxprune.evaluation.evaluator
import onnxprune.evaluation.runtime
from onnxprune.data import Data
from onnxprune.errors import DataError, InvalidModel, OnnxPruneError
from onnxprune.evaluation.evaluator import Evaluator
from onnxprune.evaluation.runtime import latencies, latency, running, session
from tests.support.judged import CLASSES, DATA, HEAD, NET, OUTPUT, X, Y, model, reference

RNG = np.random.default_rng(1)


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits.astype(np.float64))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_the_model_does_not_know_is_refused(label: int) -> None:
    wrong = Data(X[:2], np.array([0, label]), ())
    with pytest.raises(DataError, match=f"label {label}, expected 0 to 3 as the model has 4"):
        Evaluator(wrong)(NET)


# Running models


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
@pytest.mark.parametrize("batch", ["N", "1", "2", "7", "9"])
def test_logits_are_those_of_the_reference(batch: str, batch_size: int) -> None:
    net = model(HEAD + "y = Flatten(m)", f"float[{batch}, 3, 4, 4] x", f"float[{batch}, 4] y")
    logits = Evaluator(DATA, batch_size=batch_size, threads=1).outputs(net)[OUTPUT]
    np.testing.assert_allclose(logits, reference(NET, X), rtol=1e-5, atol=1e-6)


def test_evaluation_counts_what_the_reference_gets_right() -> None:
    accuracy = Evaluator(DATA, threads=1)(NET)
    logits = reference(NET, X)
    right = logits.argmax(axis=1) == Y
    assert accuracy.correct.tolist() == [right[Y == k].sum() for k in range(CLASSES)]
    assert accuracy.total.tolist() == [(Y == k).sum() for k in range(CLASSES)]
    true = softmax(logits)[np.arange(7), Y]
    expected = [true[Y == k].sum() for k in range(CLASSES)]
    np.testing.assert_allclose(accuracy.probability, expected, rtol=1e-5)


@pytest.mark.parametrize("last", ["Softmax", "LogSoftmax"])
def test_probabilities_are_not_softmaxed_again(last: str) -> None:
    evaluate = Evaluator(DATA, threads=1)
    plain, soft = (
        evaluate(NET),
        evaluate(model(HEAD + f"y = {last}<axis = 1>(m)", y="float[N, 4, 1, 1] y")),
    )
    np.testing.assert_allclose(soft.probability, plain.probability, rtol=1e-5)


def own(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.array([(outputs.argmax(1) == targets)[targets == k].mean() for k in range(CLASSES)])


@pytest.mark.parametrize("metric", ["top-1", own])
def test_each_fold_is_measured_with_a_model_of_its_own(metric: Any) -> None:
    other = model(HEAD + "n = Neg(m) y = Flatten(n)")
    folds = np.array([0, 2, 2, 0, 2, 0, 2])
    found = Evaluator(DATA, metric=metric, threads=1).apart([NET, other], folds)
    logits = np.where((folds == 0)[:, None], reference(NET, X), -reference(NET, X))
    right = logits.argmax(axis=1) == Y
    expected = [right[Y == k].mean() for k in range(CLASSES)]
    np.testing.assert_allclose(found.per_class, expected)


def test_a_model_is_read_from_its_file_too(tmp_path: Path) -> None:
    onnx.save(NET, tmp_path / "net.onnx")
    evaluator = Evaluator(DATA, threads=1)
    expected = evaluator.outputs(NET)[OUTPUT]
    for path in (tmp_path / "net.onnx", str(tmp_path / "net.onnx")):
        np.testing.assert_array_equal(evaluator.outputs(path)[OUTPUT], expected)


def test_batches_are_bound_once_and_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    make = onnxruntime.OrtValue.ortvalue_from_numpy

    def counted(x: np.ndarray, *rest: Any) -> Any:
        made.append(x)
        return make(x, *rest)

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", staticmethod(counted))
    evaluator = Evaluator(DATA, threads=1, batch_size=3)
    first, second = evaluator.outputs(NET)[OUTPUT], evaluator.outputs(NET)[OUTPUT]
    assert [len(x) for x in made] == [3, 3, 1]
    assert all(np.shares_memory(x, X) for x in made)
    np.testing.assert_array_equal(first, second)


def test_initializers_among_the_inputs_are_no_inputs() -> None:
    net = onnx.ModelProto()
    net.CopyFrom(NET)
    net.graph.input.append(onnx.helper.make_tensor_value_info("w", 1, [4, 3, 1, 1]))
    logits = Evaluator(DATA, threads=1).outputs(net)[OUTPUT]
    np.testing.assert_allclose(logits, reference(NET, X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("float16", np.float16), ("double", np.float64), ("uint8", np.uint8)],
)
def test_samples_are_cast_to_the_models_type(kind: str, dtype: type[np.generic]) -> None:
    net = model(
        "f = Cast<to = 1>(x) c = Conv(f, w) m = GlobalAveragePool(c) y = Flatten(m)",
        f"{kind}[N, 3, 4, 4] x",
    )
    x = RNG.integers(0, 256, X.shape).astype(np.float32)
    logits = Evaluator(Data(x, Y, ()), threads=1).outputs(net)[OUTPUT]
    np.testing.assert_allclose(logits, reference(net, x.astype(dtype)), rtol=1e-4)


INVALID = {
    "two inputs": (
        model("c = Conv(x, w) a = Add(c, b) y = Flatten(a)", "float[N, 3, 4, 4] x, float[1] b"),
        DataError,
        r"takes x, b, the samples are one array; give every input by its name",
    ),
    "no input": (
        model("y = Flatten(w)", ""),
        InvalidModel,
        r"has no inputs",
    ),
    "integer input": (
        model("y = Cast<to = 1>(x)", "uint64[N, 3, 4, 4] x", "float[N, 3, 4, 4] y"),
        InvalidModel,
        r"input 'x' is tensor\(uint64\), expected one of tensor\(float\)",
    ),
    "feature map": (
        model("y = Conv(x, w)", y="float[N, 4, 4, 4] y"),
        InvalidModel,
        r"output 'y' is float32 \[7, 4, 4, 4\], expected floats \[7, classes\]",
    ),
    "class number": (
        model(HEAD + "f = Flatten(m) y = ArgMax<axis = 1, keepdims = 0>(f)", y="int64[N] y"),
        InvalidModel,
        r"output 'y' is int64 \[7\]",
    ),
    "batch lost": (
        model(HEAD + "f = Flatten(m) y = ReduceMean<axes = [0]>(f)", y="float[1, 4] y"),
        InvalidModel,
        r"output 'y' is float32 \[1, 4\], expected floats \[7, classes\]",
    ),
    "NaN": (
        model(HEAD + "f = Flatten(m) z = Mul(f, zero) y = Div(z, z)"),
        InvalidModel,
        "output 'y' holds NaN or infinity",
    ),
    "fails at run time": (
        model("s = Shape(zero) y = Reshape(x, s)"),
        InvalidModel,
        r"model 'net': fails on a batch \[7, 3, 4, 4\]: .*Reshape",
    ),
    "unknown operator": (
        model("y = NoSuchOperator(x)"),
        InvalidModel,
        "model 'net': onnxruntime refuses it: .*NoSuchOperator",
    ),
    "other size": (
        model(HEAD + "y = Flatten(m)", "float[N, 3, 8, M] x"),
        DataError,
        r"model 'net': takes samples of \[3, 8, None\], these are \[3, 4, 4\]",
    ),
    "other rank": (
        model("y = Identity(x)", "float[N, 48] x"),
        DataError,
        r"takes samples of \[48\], these are \[3, 4, 4\]",
    ),
    "fractions as uint8": (
        model("y = Cast<to = 1>(x)", "uint8[N, 3, 4, 4] x", "float[N, 3, 4, 4] y"),
        DataError,
        "takes uint8, which cannot hold all values of these samples",
    ),
}


@pytest.mark.parametrize(("net", "kind", "match"), INVALID.values(), ids=INVALID)
def test_what_is_no_image_classifier_is_refused(
    net: onnx.ModelProto, kind: type[OnnxPruneError], match: str
) -> None:
    with pytest.raises(kind, match=match) as caught:
        Evaluator(DATA, threads=1)(net)
    assert "\n" not in str(caught.value)


def test_a_model_without_a_declared_rank_is_run() -> None:
    net = onnx.ModelProto()
    net.CopyFrom(NET)
    net.graph.input[0].type.tensor_type.ClearField("shape")
    logits = Evaluator(DATA, threads=1).outputs(net)[OUTPUT]
    np.testing.assert_allclose(logits, reference(NET, X), rtol=1e-5, atol=1e-6)
    assert latency(net, repeats=1, shape=(3, 4, 4)) > 0


def test_a_corrupt_file_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(InvalidModel) as caught:
        session(path)
    assert str(caught.value).startswith(f"{path}: onnxruntime refuses it: ")
    assert "\n" not in str(caught.value)
    with pytest.raises(InvalidModel, match=r"missing\.onnx: onnxruntime refuses it: .*exist"):
        session(tmp_path / "missing.onnx")


def test_no_samples_are_refused() -> None:
    with pytest.raises(DataError, match="none to evaluate on"):
        Evaluator(Data(X[:0], Y[:0], ()))


# Latency


def test_latency_is_the_lower_quartile_after_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    durations = [9.0, 9.0, 0.5, 0.001, 0.002, 0.003, 0.004]  # two runs of warm-up, then five
    ticks = iter(np.cumsum(np.repeat(durations, 2) * np.tile([0, 1], 7)).tolist())
    monkeypatch.setattr(onnxprune.evaluation.net.time, "perf_counter", lambda: next(ticks))
    assert latency(NET, repeats=5, warmup=2, threads=1) == pytest.approx(2.0)
    assert next(ticks, None) is None


def test_latency_of_a_fast_model_takes_more_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(np.arange(0, 100, 0.01).tolist())
    monkeypatch.setattr(onnxprune.evaluation.net.time, "perf_counter", lambda: next(ticks))
    assert latency(NET, repeats=3, warmup=0, threads=1) == pytest.approx(10.0)
    assert 0.5 <= next(ticks) <= 0.53  # a quarter of a second within calls, and as much between


def test_models_are_timed_to_and_fro(monkeypatch: pytest.MonkeyPatch) -> None:
    nets, order = [running(NET, "cpu", 1, exact=False) for _ in range(2)], list[int]()
    for number, net in enumerate(nets):
        monkeypatch.setattr(net, "seconds", lambda batch, k=number: order.append(k) or 1.0)
    assert latencies(nets, repeats=3, warmup=0, patience=9) == [1000.0, 1000.0]
    assert order == [1, 0, 0, 1, 1, 0]


def test_latency_of_a_slow_model_takes_fewer_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1000))
    monkeypatch.setattr(onnxprune.evaluation.net.time, "perf_counter", lambda: next(ticks))
    assert latency(NET, warmup=2, patience=6.5, threads=1) == pytest.approx(1000)
    assert next(ticks) == 2 * (2 + 7), "each run takes a second"
    assert latency(NET, warmup=0, patience=0, threads=1) == pytest.approx(1000)
    assert next(ticks) == 2 * (2 + 7) + 1 + 2 * 5


def test_latency_runs_the_batch_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    run = onnxprune.evaluation.runtime.Network.seconds
    monkeypatch.setattr(
        onnxprune.evaluation.runtime.Network,
        "seconds",
        lambda net, batch: ran.append(batch.values["x"].shape()) or run(net, batch),
    )
    fixed = model(HEAD + "y = Flatten(m)", "float[2, 3, 4, 4] x", "float[2, 4] y")
    for net in (NET, fixed):
        assert latency(net, batch_size=5, repeats=1, warmup=0, threads=1) > 0
    assert [shape for k, shape in enumerate(ran) if shape not in ran[:k]] == [
        [5, 3, 4, 4],
        [2, 3, 4, 4],
    ]


def test_latency_needs_the_axes_a_model_leaves_open() -> None:
    net = model(HEAD + "y = Flatten(m)", "float[N, 3, H, W] x")
    with pytest.raises(InvalidModel, match="input 'x' has open axes; pass shape="):
        latency(net)
    assert latency(net, repeats=1, shape=(3, 4, 4)) > 0
