"""A device that cannot be had is one line that names what is missing."""

import ctypes
import re
import sys
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
import torch

from onnxprune.errors import MissingPackage
from onnxprune.evaluation import cards
from onnxprune.evaluation.runtime import CPU, CUDA, EXACT, PRECISE, TENSORRT, session
from onnxprune.relevance.mirror import choose_device
from tests.support.judged import NET


def driver(started: int, counted: int, cards: int) -> Any:
    def count(place: Any) -> int:
        ctypes.cast(place, ctypes.POINTER(ctypes.c_int)).contents.value = cards
        return counted

    return SimpleNamespace(cuInit=lambda flags: started, cuDeviceGetCount=count)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "no NVIDIA driver is installed"),
        (driver(100, 0, 1), "finds no card it can use .CUDA error 100."),
        (driver(0, 3, 1), "finds no card it can use .CUDA error 3."),
        (driver(0, 0, 0), "finds no card .see CUDA_VISIBLE_DEVICES."),
        (driver(0, 0, 2), "^$"),
    ],
)
def test_the_driver_says_whether_there_is_a_card(
    found: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "_driver", lambda: found)
    with pytest.MonkeyPatch.context() as patch:
        if found is not None:
            patch.setattr(ctypes, "byref", ctypes.pointer)
        assert re.search(said, cards.no_card.__wrapped__())


class Asked(list[Any]):
    """The providers that sessions were asked for."""


@pytest.fixture
def onnxruntime_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    def of(offered: list[str], starts: list[str], card: str = "") -> Asked:
        asked = Asked()

        class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
            def __init__(self, source: Any, options: Any, *, providers: Any, **more: Any) -> None:
                asked.append(providers)
                super().__init__(source, options, providers=[CPU], **more)

            def get_providers(self) -> list[str]:
                return starts

        fake = SimpleNamespace(
            SessionOptions=onnxruntime.SessionOptions,
            InferenceSession=Session,
            get_available_providers=lambda: offered,
        )
        monkeypatch.setitem(sys.modules, "onnxruntime", fake)
        monkeypatch.setattr("onnxprune.evaluation.runtime.no_card", lambda: card)
        return asked

    return of


def test_tensorrt_is_asked_for_with_cuda_behind_it(onnxruntime_of: Any) -> None:
    asked = onnxruntime_of([TENSORRT, CUDA, CPU], [TENSORRT, CUDA, CPU])
    session(NET, device="tensorrt")
    session(NET, device="tensorrt", exact=False)
    session(NET, device="cuda")
    assert asked == [
        [(TENSORRT, PRECISE), (CUDA, EXACT), CPU],
        [(TENSORRT, {}), (CUDA, {}), CPU],
        [(CUDA, EXACT), CPU],
    ]


@pytest.mark.parametrize(
    ("device", "offered", "starts", "card", "said"),
    [
        ("cuda", [CPU], [CPU], "", "this onnxruntime has no CUDA; pip install"),
        ("tensorrt", [CUDA, CPU], [CUDA, CPU], "", "has no TensorRT; pip install"),
        (
            "cuda",
            [CUDA, CPU],
            [CPU],
            "",
            r"start .onnxruntime left it out.; .*repair CUDA",
        ),
        ("cuda", [CUDA, CPU], [CPU], "no card", r"does not start .no card."),
        (
            "tensorrt",
            [TENSORRT, CUDA, CPU],
            [CUDA, CPU],
            "",
            r"does not start .*repair TensorRT .pip install tensorrt., or use cuda",
        ),
    ],
)
def test_what_is_missing_is_named(
    device: str, offered: list[str], starts: list[str], card: str, said: str, onnxruntime_of: Any
) -> None:
    onnxruntime_of(offered, starts, card)
    with pytest.raises(MissingPackage, match=f"^device '{device}'.*{said}") as caught:
        session(NET, device=device)
    assert "\n" not in str(caught.value)


def test_torch_says_whether_its_build_or_the_card_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(MissingPackage, match="this torch is built without CUDA; pip install"):
        choose_device("cuda")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    for card, said in (("no driver", "no driver"), ("", "torch finds no CUDA device")):
        monkeypatch.setattr("onnxprune.relevance.mirror.no_card", lambda card=card: card)
        with pytest.raises(MissingPackage, match=f"^device 'tensorrt': {said}.*--device cpu$"):
            choose_device("tensorrt")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [choose_device(one) for one in ("auto", "cuda", "cuda:1", "tensorrt", "cpu")] == [
        *("cuda", "cuda", "cuda:1", "cuda", "cpu"),
    ]
