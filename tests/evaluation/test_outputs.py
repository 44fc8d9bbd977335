"""Networks of any inputs and outputs: a sample keeps its own row, and a metric gets them all."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from onnxprune.data import Data, Inputs
from onnxprune.errors import DataError, InvalidModel
from onnxprune.evaluation import FIDELITY, Evaluator, find_metric
from onnxprune.evaluation.metrics import Metric
from tests.support.models import model, run

RNG = np.random.default_rng(0)
N = 7
TWO = """
net (float[N,3,4,4] a, float[N,5] b) => (float[N,6] y, float[N,5] z)
<float[6,3,1,1] w, float[5,6] v> {
  c = Conv(a, w)
  m = GlobalAveragePool(c)
  f = Flatten(m)
  g = MatMul(b, v)
  y = Add(f, g)
  z = Neg(b)
}
"""
STEPS = """
net (float[{n},3,4,6] x) => (float[6,{n},5] y)
<float[5,3,4,1] w> {{
  two = Constant<value_ints=[2]>()
  c = Conv(x, w)
  s = Squeeze(c, two)
  y = Transpose<perm=[2,0,1]>(s)
}}
"""
"""`[T, N, K]`: what a recogniser of text gives, its T being 6."""


def inputs(count: int = N) -> Inputs:
    a = RNG.normal(size=(count, 3, 4, 4)).astype(np.float32)
    return Inputs({"a": a, "b": RNG.normal(size=(count, 5)).astype(np.float32)})


def data_of(x: Any, **more: Any) -> Data:
    return Data(x, np.zeros(len(x), np.int64), ("all",), labelled=False, **more)


def outputs(proto: onnx.ModelProto, data: Data, **options: Any) -> dict[str, npt.NDArray[Any]]:
    """Whatever a metric reads: all outputs, or those that are named."""
    given = {"metric": FIDELITY, "threads": 1, "device": "cpu", **options}
    return Evaluator(data, **given).outputs(proto)


# Inputs and outputs by name


@pytest.mark.parametrize("size", [1, 3, N, 64])
@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_inputs_go_by_their_names(names: tuple[str, str], size: int) -> None:
    proto, x = model(TWO), inputs()
    turned = Inputs({name: x.arrays[name] for name in names})
    found = outputs(proto, data_of(turned), batch_size=size)
    assert tuple(found) == ("y", "z")
    for rows, expected in zip(found.values(), run(proto, *x.arrays.values()), strict=True):
        np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-6)


def test_inputs_that_are_missing_or_of_other_shape_are_refused() -> None:
    proto, x = model(TWO), inputs()
    with pytest.raises(DataError, match="takes a, b, the samples are a; give every input"):
        outputs(proto, data_of(Inputs({"a": x.arrays["a"]})))
    wrong = Inputs({**x.arrays, "b": x.arrays["b"][:, :4]})
    with pytest.raises(DataError, match=r"takes samples of \[5\], these are \[4\]"):
        outputs(proto, data_of(wrong))


def test_tensors_inside_the_model_are_outputs_that_can_be_named() -> None:
    proto, x = model(TWO), inputs()
    before = proto.SerializeToString()
    found = outputs(proto, data_of(x), outputs=["z", "f"])
    assert tuple(found) == ("z", "f") and proto.SerializeToString() == before
    w = onnx.numpy_helper.to_array(proto.graph.initializer[0])[:, :, 0, 0]
    np.testing.assert_allclose(found["f"], x.arrays["a"].mean((2, 3)) @ w.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found["z"], -x.arrays["b"])


# Outputs whose rows are no samples


@pytest.mark.parametrize("size", [1, 3, 6, 64])
@pytest.mark.parametrize("count", [1, 5, 6, 7, 13])
def test_a_sample_has_its_own_steps_wherever_its_axis_stands(count: int, size: int) -> None:
    """Also where there are as many steps as samples, so that one could be taken for the other."""
    proto = model(STEPS.format(n="N"))
    x = RNG.normal(size=(count, 3, 4, 6)).astype(np.float32)
    found = outputs(proto, data_of(x), batch_size=size)["y"]
    expected = run(proto, x)[0].transpose(1, 0, 2)
    assert found.shape == (count, 6, 1, 5)
    np.testing.assert_allclose(found[:, :, 0], expected, rtol=1e-5, atol=1e-6)


def test_a_fixed_batch_of_one_has_its_own_steps_too() -> None:
    x = RNG.normal(size=(3, 3, 4, 6)).astype(np.float32)
    found = outputs(model(STEPS.format(n="1")), data_of(x))["y"]
    expected = run(model(STEPS.format(n="N")), x)[0].transpose(1, 0, 2)
    np.testing.assert_allclose(found[:, :, 0], expected, rtol=1e-5, atol=1e-6)


FOUND = """
net (float[N,1,4,4] x) => (int64[R,K] places, float[N,1,4,4] y, int64[K,R] turned)
<float[1,1,1,1] w> {
  y = Conv(x, w)
  r = Relu(y)
  turned = NonZero(r)
  places = Transpose<perm=[1,0]>(turned)
}
"""


def test_outputs_that_vary_in_shape_are_one_array_for_each_sample() -> None:
    proto = model(FOUND)
    x = RNG.normal(size=(5, 1, 4, 4)).astype(np.float32)
    found = outputs(proto, data_of(x), batch_size=4)
    assert found["places"].shape == (5,) and found["places"].dtype == object
    for one, places, y, turned in zip(x, *found.values(), strict=True):
        expected, rows, _ = run(proto, one[None])
        np.testing.assert_array_equal(places, expected)
        np.testing.assert_array_equal(turned, expected.T)
        np.testing.assert_array_equal(y, rows[0])


def test_an_output_of_the_whole_batch_is_that_of_each_sample_alone() -> None:
    proto = model("""
    net (float[N,3,4,4] x) => (float y) <float[2,3,1,1] w> {
      c = Conv(x, w)
      y = ReduceMax<keepdims=0>(c)
    }
    """)
    x = RNG.normal(size=(4, 3, 4, 4)).astype(np.float32)
    found = outputs(proto, data_of(x))["y"]
    np.testing.assert_allclose(found, [run(proto, one[None])[0] for one in x], rtol=1e-6)


def test_values_that_are_no_numbers_are_refused() -> None:
    proto = model("""
    net (float[N,3] x) => (float[N,3] y) <float[3] w> { s = Log(x)  y = Mul(s, w) }
    """)
    with pytest.raises(InvalidModel, match="output 'y' holds NaN or infinity"):
        outputs(proto, data_of(-np.ones((2, 3), np.float32)))


# Metrics of one's own


def boxes() -> npt.NDArray[Any]:
    """Targets of any type: sample i has i of them."""
    held = np.empty(N, object)
    held[:] = [{"boxes": np.full((k, 4), k)} for k in range(N)]
    return held


TARGETS: dict[str, npt.NDArray[Any]] = {
    "objects": boxes(),
    "floats": RNG.normal(size=(N, 2, 3)),
    "a number": RNG.normal(size=N),
}


def same(one: Any, other: Any) -> bool:
    return one is other if isinstance(other, dict) else bool(np.array_equal(one, other))


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
def test_a_metric_of_three_gets_outputs_by_name_targets_and_numbers(
    targets: npt.NDArray[Any],
) -> None:
    proto, x, seen = model(TWO), inputs(), []

    def own(found: Any, wanted: Any, numbers: Any) -> float:
        seen.append((found, wanted, numbers))
        return 0.25

    evaluator = Evaluator(data_of(x, targets=targets), metric=own, batch_size=3, threads=1)
    assert evaluator(proto).harmonic == evaluator(proto).soft_harmonic == 0.25
    found, wanted, numbers = seen[0]
    assert type(found) is dict and tuple(found) == ("y", "z") and found["z"].shape == (N, 5)
    assert type(wanted) is list and all(map(same, wanted, targets))
    assert numbers.tolist() == list(range(N))


def test_folds_come_back_in_one_with_the_numbers_of_their_samples() -> None:
    """An own metric sees all samples at once, each by the model of its fold."""
    proto, x = model(TWO), inputs()
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    other.graph.node[-1].op_type = "Identity"
    folds = np.array([1, 0, 1, 1, 0, 2, 0])
    targets = np.arange(N) + 0.5

    def own(found: Any, wanted: Any, numbers: Any) -> float:
        np.testing.assert_array_equal(wanted, numbers + 0.5)
        sign = np.where(folds[numbers] == 0, 1, -1)[:, None]
        np.testing.assert_array_equal(found["z"], sign * x.arrays["b"][numbers])
        return float(len(numbers) == N)

    evaluator = Evaluator(data_of(x, targets=targets), metric=own, threads=1)
    assert evaluator.apart([other, proto, proto], folds).harmonic == 1


def test_a_metric_of_two_gets_the_first_output_as_before() -> None:
    def own(found: Any, wanted: Any) -> list[float]:
        assert isinstance(found, np.ndarray) and found.shape == (N, 6)
        return [float((wanted == np.arange(N) + 0.5).all())]

    data = data_of(inputs(), targets=np.arange(N) + 0.5)
    assert Evaluator(data, metric=own, threads=1)(model(TWO)).harmonic == 1


def test_a_metric_may_name_what_it_reads() -> None:
    plain = find_metric(lambda found, wanted, numbers: float(tuple(found) == ("f",)))
    metric = Metric("own", plain.measure, "own", reads=("f",))
    assert Evaluator(data_of(inputs()), metric=metric, threads=1)(model(TWO)).harmonic == 1


@pytest.mark.parametrize("score", [1.5, -0.1, [[0.5]], []], ids=str)
def test_a_score_that_is_none_is_refused(score: Any) -> None:
    data = data_of(inputs(), targets=RNG.normal(size=(N, 2)))
    with pytest.raises(DataError, match="returns shape") as caught:
        Evaluator(data, metric=lambda found, wanted, numbers: score, threads=1)(model(TWO))
    assert "\n" not in str(caught.value)


def test_an_output_that_is_no_tensor_is_named() -> None:
    body = """
    net (float[N,3] x) => (float[N,3] y, seq(float[N,3]) z) { y = Neg(x) z = SequenceConstruct(y) }
    """
    proto = model(body)
    data = data_of(RNG.normal(size=(N, 3)).astype(np.float32))
    with pytest.raises(InvalidModel, match=r"output 'z' is seq\(.*expected a tensor; export"):
        Evaluator(data, metric=FIDELITY, threads=1).outputs(proto)
