"""Relevance and least squares go on with half the batch when memory is exhausted."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import onnxprune
from onnxprune.errors import OutOfMemory, OutputError
from onnxprune.relevance import Halving, repeatable
from onnxprune.relevance.mirror import Mirror, Tensors
from tests.support.small_net import Small

ERRORS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    MemoryError(),
)


def in_batches(tried: list[int], most: int, error: Exception) -> Halving:
    def make(size: int) -> Any:
        def compute(count: int) -> int:
            tried.append(size)
            if size > most:
                raise error
            return count

        return compute

    return Halving(make, 32)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_batch_is_halved_until_it_fits_and_stays_so(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[int] = []
    compute = in_batches(tried, 5, error)
    assert [compute(7), compute(8)] == [7, 8]
    assert tried == [32, 16, 8, 4, 4]
    assert "going on with batches of 4" in caplog.text


def test_one_sample_that_does_not_fit_is_one_line() -> None:
    tried: list[int] = []
    with pytest.raises(OutOfMemory, match="out of memory; give --memory"):
        in_batches(tried, 0, ERRORS[0])(1)
    assert tried == [32, 16, 8, 4, 2, 1]


@pytest.mark.parametrize("error", [RuntimeError("something else"), OutputError("disk")])
def test_another_error_is_raised_as_it_is(error: Exception) -> None:
    tried: list[int] = []
    with pytest.raises(type(error), match=str(error)):
        in_batches(tried, 0, error)(1)
    assert tried == [32]


@pytest.fixture
def room_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A torch with room for three samples; the sizes of the batches that it took."""
    sizes: list[int] = []
    begin = Mirror.start

    def start(self: Mirror, x: Any) -> Tensors:
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        sizes.append(len(x))
        return begin(self, x)

    monkeypatch.setattr(Mirror, "start", start)
    return sizes


@pytest.mark.parametrize(
    ("control", "criterion", "compensate"),
    [
        ("accuracy-aware", "lrp", "none"),
        ("accuracy-aware", "lrp", "least-squares"),
        ("one-shot", "taylor", "bias"),
        ("one-shot", "taylor", "least-squares"),
    ],
)
def test_a_search_ends_in_the_same_plan(
    small: Small, control: str, criterion: str, compensate: str, room_for: list[int]
) -> None:
    asked: dict[str, Any] = {"control": control, "criterion": criterion, "compensate": compensate}
    asked.update(rate=0.4, threads=1)
    found = onnxprune.prune(small.proto, (small.x, small.y), batch_size=16, **asked)
    assert max(room_for) <= 3
    assert (
        found.plan == onnxprune.prune(small.proto, (small.x, small.y), batch_size=2, **asked).plan
    )


def flags() -> tuple[Any, ...]:
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    strict = torch.get_deterministic_debug_mode()
    return cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, products.allow_tf32, strict


def test_a_card_repeats_itself_while_we_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = flags()
    with repeatable():
        assert flags() == usual  # without a card
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    with pytest.raises(KeyError), repeatable():
        assert flags() == (True, False, False, False, 1)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        raise KeyError
    assert flags() == usual
