"""Which build of onnxruntime, and which device of it, a model runs on."""

import importlib.metadata
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

import onnxprune.evaluation.evaluator
import onnxprune.evaluation.runtime
from onnxprune.errors import InvalidModel, MissingPackage
from onnxprune.evaluation.evaluator import Evaluator
from onnxprune.evaluation.runtime import EXACT, session
from tests.support.judged import DATA, NET, OUTPUT, X, model, reference


def test_without_onnxruntime_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackage, match="needs onnxruntime; pip install onnxruntime"):
        session(NET)
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    with pytest.raises(
        MissingPackage, match="onnxruntime is broken; pip install --force-reinstall"
    ):
        session(NET)


def test_cuda_that_is_not_there_is_refused() -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(MissingPackage, match=r"has no CUDA; .*onnxprune\[gpu\]"):
        session(NET, device="cuda")
    with pytest.raises(ValueError, match="device 'tpu': unknown; expected one of"):
        session(NET, device="tpu")


def test_a_build_with_cuda_that_another_hides_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: name)
    repair = "hides it; pip install --force-reinstall --no-deps onnxruntime-gpu"
    with pytest.raises(MissingPackage, match=f"^device 'cuda': .*{repair}$"):
        session(NET, device="cuda")
    onnxprune.evaluation.runtime._warn_of_hidden.cache_clear()
    for device in ("cpu", "auto", "auto"):
        session(NET, device=device)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].endswith(repair)
    onnxprune.evaluation.runtime._warn_of_hidden.cache_clear()


@pytest.fixture(params=["raises", "leaves it out"])
def broken_cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """An onnxruntime that offers CUDA and cannot start it; the providers it was asked for."""
    asked: list[Any] = []

    def start(source: Any, options: Any, *, providers: list[Any], **more: Any) -> Any:
        asked.append(providers)
        if len(providers) > 1 and request.param == "raises":
            raise RuntimeError("no driver\nand more")
        return onnxruntime.InferenceSession(source, options, providers=providers[-1:], **more)

    fake = SimpleNamespace(
        **{name: getattr(onnxruntime, name) for name in ("SessionOptions", "OrtValue")},
        InferenceSession=start,
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        preload_dlls=lambda: print("libcudart not found"),  # noqa: T201
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    return asked


def test_cuda_that_does_not_start_falls_back_once_with_a_warning(
    broken_cuda: list[Any], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluator = Evaluator(DATA, threads=1)
    for _ in range(2):
        np.testing.assert_allclose(
            evaluator.outputs(NET)[OUTPUT], reference(NET, X), rtol=1e-5, atol=1e-6
        )
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "running on the CPU" in caplog.text
    assert [len(providers) for providers in broken_cuda] == [2, 1, 1]
    assert capsys.readouterr().out == ""


def test_cuda_that_is_asked_for_and_does_not_start_is_refused(broken_cuda: list[Any]) -> None:
    with pytest.raises(MissingPackage, match="device 'cuda' does not start") as caught:
        session(NET, device="cuda")
    assert "\n" not in str(caught.value)
    assert broken_cuda[0][0][0] == "CUDAExecutionProvider"


def test_a_corrupt_model_is_not_blamed_on_cuda(broken_cuda: list[Any]) -> None:
    with pytest.raises(InvalidModel, match="onnxruntime refuses it"):
        session(model("y = NoSuchOperator(x)"), device="cuda")
    assert broken_cuda


@pytest.mark.parametrize(("room", "times"), [(1 << 20, 1), (1, 2)])
def test_samples_stay_on_the_gpu_where_they_fit(
    monkeypatch: pytest.MonkeyPatch, room: int, times: int
) -> None:
    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, source: Any, options: Any, *, providers: list[Any], **more: Any) -> None:
            asked.append(providers[0])
            super().__init__(source, options, providers=providers[-1:], **more)

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def put(x: np.ndarray, where: str, device: int) -> Any:
        places.append(where)
        return onnxruntime.OrtValue.ortvalue_from_numpy(x)

    asked: list[Any] = []
    places: list[str] = []
    fake = SimpleNamespace(
        SessionOptions=onnxruntime.SessionOptions,
        InferenceSession=Session,
        OrtValue=SimpleNamespace(ortvalue_from_numpy=put),
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr(onnxprune.evaluation.evaluator, "RESIDENT_BYTES", room)
    evaluator = Evaluator(DATA, batch_size=4, threads=1)
    for _ in range(2):
        np.testing.assert_allclose(
            evaluator.outputs(NET)[OUTPUT], reference(NET, X), rtol=1e-5, atol=1e-6
        )
    assert places == ["cuda"] * 2 * times
    assert asked == [("CUDAExecutionProvider", EXACT)] * 2
    assert EXACT["use_tf32"] == "0"


def test_threads_and_determinism_reach_the_session() -> None:
    options = session(NET, threads=1).get_session_options()
    assert options.intra_op_num_threads == 1
    assert options.log_severity_level == 4
    assert options.use_deterministic_compute
    assert not session(NET, exact=False).get_session_options().use_deterministic_compute


def test_sums_of_8_bit_products_are_exact_where_that_is_asked_for() -> None:
    entry = "session.x64quantprecision"
    options = session(NET, threads=1, saturates=False).get_session_options()
    assert options.get_session_config_entry(entry) == "1"
    with pytest.raises(RuntimeError):  # there is no such entry
        session(NET, threads=1).get_session_options().get_session_config_entry(entry)
