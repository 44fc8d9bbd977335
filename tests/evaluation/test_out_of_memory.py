"""A batch that does not fit into memory is run in halves; the answers are the same."""

import logging
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from onnxprune.errors import InvalidModel, OutOfMemory
from onnxprune.evaluation.evaluator import Evaluator
from onnxprune.evaluation.runtime import CPU, CUDA, Network, latencies
from tests.support.judged import DATA, NET, OUTPUT, X, model, reference

SAID = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running "
    "Conv node. bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 8589934592",
    "CUDA failure 2: out of memory ; GPU=0 ; hostname=a ; expr=cudaMalloc((void**)&p, size);",
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
    "std::bad_alloc",
)

Fake = Callable[..., list[int]]


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """An onnxruntime with room for so many samples; the sizes of the batches that are run."""

    def of(most: int, said: str = SAID[0], put: Any = None, providers: Any = None) -> list[int]:
        class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
            def __init__(self, source: Any, options: Any, *, providers: Any, **more: Any) -> None:
                super().__init__(source, options, providers=providers[-1:], **more)

            def run_with_iobinding(self, binding: Any, *given: Any) -> None:
                sizes.append(held[0])
                if held[0] > most:
                    raise RuntimeError(said)
                super().run_with_iobinding(binding, *given)

            def get_providers(self) -> list[str]:
                return providers or [CPU]

        def value_of(x: np.ndarray, place: str, device: int) -> Any:
            if put is not None:
                put(x, place)
            return onnxruntime.OrtValue.ortvalue_from_numpy(x)

        bound = Network._run

        def run(self: Network, batch: Any, names: Any) -> Any:
            held[0] = batch.size
            return bound(self, batch, names)

        held, sizes = [0], list[int]()
        fake = SimpleNamespace(
            SessionOptions=onnxruntime.SessionOptions,
            InferenceSession=Session,
            OrtValue=SimpleNamespace(ortvalue_from_numpy=value_of),
            get_available_providers=lambda: providers or [CPU],
        )
        monkeypatch.setitem(sys.modules, "onnxruntime", fake)
        monkeypatch.setattr(Network, "_run", run)
        return sizes

    return of


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_batch_that_does_not_fit_is_run_in_halves(
    room: Fake, said: str, most: int, caplog: pytest.LogCaptureFixture
) -> None:
    sizes = room(most, said)
    found = Evaluator(DATA, batch_size=8, threads=1).outputs(NET)[OUTPUT]
    np.testing.assert_allclose(found, reference(NET, X), rtol=1e-5, atol=1e-6)
    assert sum(size for size in sizes if size <= most) == len(X)
    assert sum(size > most for size in sizes) <= 3  # what follows is not tried whole again
    assert any("going on with batches of" in line for line in caplog.messages)


def test_a_metric_that_adds_up_comes_out_the_same(room: Fake) -> None:
    expected = Evaluator(DATA, batch_size=8, threads=1)(NET)
    room(2)
    assert Evaluator(DATA, batch_size=8, threads=1)(NET) == expected


def test_a_sample_that_does_not_fit_is_one_line(room: Fake) -> None:
    room(0)
    with pytest.raises(OutOfMemory, match="out of memory; give --memory") as caught:
        Evaluator(DATA, batch_size=4, threads=1)(NET)
    assert "\n" not in str(caught.value)


def test_another_error_is_not_taken_for_memory(room: Fake) -> None:
    sizes = room(1, "Expected an axis of 4")
    with pytest.raises(InvalidModel, match="Expected an axis of 4"):
        Evaluator(DATA, batch_size=4, threads=1)(NET)
    assert sizes == [4]


def test_samples_that_cannot_be_told_apart_are_not_halved(room: Fake) -> None:
    summed = model("y = ReduceSum(x)")
    room(2)
    net = Network(summed, "cpu", 1, exact=True)
    with pytest.raises(OutOfMemory, match="has no row for each sample"):
        net.run(net.bind(net.fitted(X[:4]), "cpu"))


def test_a_latency_is_that_of_the_batch_that_was_asked_for(room: Fake) -> None:
    room(2)
    with pytest.raises(OutOfMemory):
        latencies([NET], batch_size=4, threads=1, samples=X)


def test_samples_that_a_card_has_no_room_for_are_sent_batch_by_batch(
    room: Fake, caplog: pytest.LogCaptureFixture
) -> None:
    places: list[str] = []

    def put(x: np.ndarray, place: str) -> None:
        places.append(place)
        if place == "cuda" and places.count("cuda") > 1:
            raise RuntimeError(SAID[1])

    caplog.set_level(logging.INFO)
    room(99, put=put, providers=[CUDA, CPU])
    found = Evaluator(DATA, batch_size=4, threads=1).outputs(NET)[OUTPUT]
    np.testing.assert_allclose(found, reference(NET, X), rtol=1e-5, atol=1e-6)
    assert places[:3] == ["cuda", "cuda", "cpu"]
    assert any("sent batch by batch" in line for line in caplog.messages)


def test_io_binding_gives_what_a_plain_run_gives() -> None:
    net = Network(NET, "cpu", 1, exact=True)
    batch = net.bind(net.fitted(X), "cpu")
    (value,) = batch.values.values()
    assert value.data_ptr() == X.ctypes.data  # the CPU needs no copy
    for rows in (slice(None), slice(2), slice(None)):  # a binding of another size is forgotten
        part = net.bind(net.fitted(X[rows]), "cpu")
        np.testing.assert_allclose(
            next(iter(net.run(part).values())), reference(NET, X[rows]), rtol=1e-5, atol=1e-6
        )
