"""A card gives what the CPU gives, and again the same."""

from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune.data import Data
from onnxprune.evaluation import Evaluator
from onnxprune.evaluation.runtime import CUDA, TENSORRT, Network
from tests.support.small_net import Small

pytestmark = pytest.mark.gpu


def data(small: Small) -> Data:
    return Data(small.x, small.y, ("a", "b", "c"))


def test_a_session_runs_on_the_card_and_reads_samples_there(small: Small) -> None:
    net = Network(small.proto, "cuda", 1, exact=True)
    assert CUDA in net.session.get_providers()
    batch = net.bind(net.fitted(small.x), net.place)
    assert {value.device_name() for value in batch.values.values()} == {"cuda"}


@pytest.mark.parametrize("device", ["cuda", "auto", "tensorrt"])
def test_outputs_are_those_of_the_cpu(small: Small, device: str) -> None:
    if device == "tensorrt" and TENSORRT not in onnxprune_providers():
        pytest.skip("this onnxruntime has no TensorRT")
    found, expected = (
        Evaluator(data(small), metric="fidelity", device=where).outputs(small.proto)["y"]
        for where in (device, "cpu")
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def onnxprune_providers() -> list[str]:
    import onnxruntime

    return list(onnxruntime.get_available_providers())


@pytest.mark.parametrize("control", ["accuracy-aware", "one-shot"])
@pytest.mark.parametrize("compensate", ["none", "bias", "least-squares"])
def test_a_plan_is_the_same_twice(small: Small, control: str, compensate: str) -> None:
    asked: dict[str, Any] = {"control": control, "compensate": compensate, "rate": 0.4}
    first, second = (
        onnxprune.prune(small.proto, (small.x, small.y), device="cuda", **asked) for _ in range(2)
    )
    assert first.plan == second.plan
    assert first.model.SerializeToString() == second.model.SerializeToString()


def test_memory_that_is_exhausted_halves_the_batch() -> None:
    import torch

    from onnxprune.relevance import Halving

    free = torch.cuda.mem_get_info()[0]

    def take(size: int) -> Any:
        return lambda: torch.empty(size * (free // 8), dtype=torch.uint8, device="cuda").numel()

    assert 0 < Halving(take, 64)() < free
