"""Large models on onnxruntime: their weights stay in a file, which is mapped."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.external_data_helper import uses_external_data

from onnxprune.errors import OutputError
from onnxprune.evaluation.runtime import session
from onnxprune.graph import save_model, sessions, storage
from tests.support.judged import NET, OUTPUT, X, reference
from tests.support.wide import wide_net


def test_a_heavy_kernel_of_a_large_model_stays_as_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of channels take three times its memory."""
    asked: list[list[str]] = []

    def start(*given: Any, disabled_optimizers: list[str], **more: Any) -> Any:
        asked.append(disabled_optimizers)
        return onnxruntime.InferenceSession(*given, disabled_optimizers=disabled_optimizers, **more)

    fake = SimpleNamespace(
        SessionOptions=onnxruntime.SessionOptions,
        InferenceSession=start,
        get_available_providers=lambda: ["CPUExecutionProvider"],
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr(sessions, "MAPPED", 40)
    for limit, heavy in ((40, 40), (40, 2**28), (10**9, 40)):
        monkeypatch.setattr(storage, "MESSAGE_LIMIT", limit)
        monkeypatch.setattr(sessions, "HEAVY", heavy)
        (found,) = session(NET).run([OUTPUT], {"x": X})
        np.testing.assert_allclose(found, reference(NET, X), rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(storage, "MESSAGE_LIMIT", 40)
    monkeypatch.setattr(sessions, "HEAVY", 40)
    session(NET, exact=False)
    assert asked == [["NchwcTransformer"], [], [], ["NchwcTransformer"]]


def test_only_what_exceeds_a_message_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums over weights that are not packed are divided otherwise on many threads."""
    entry = "session.disable_prepacking"
    monkeypatch.setattr(sessions, "MAPPED", 40)
    with pytest.raises(RuntimeError):  # there is no such entry
        session(NET).get_session_options().get_session_config_entry(entry)
    monkeypatch.setattr(storage, "MESSAGE_LIMIT", 40)
    assert session(NET).get_session_options().get_session_config_entry(entry) == "1"


def test_a_model_that_is_only_run_does_not_wait_for_the_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def sync(handle: int) -> None:
        raise AssertionError("synced")

    monkeypatch.setattr(sessions, "MAPPED", 40)
    monkeypatch.setattr("os.fsync", sync)
    session(NET)


def test_a_large_model_is_mapped_however_it_comes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In memory, in one file, in two: no weight is in a message, the outputs are the same."""
    given: list[Any] = []
    net, x = wide_net(40), np.ones((2, 3, 2, 2), np.float32)

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, source: Any, options: Any, **more: Any) -> None:
            given.append(source)
            model = onnx.load(source, load_external_data=False)
            assert [t.name for t in model.graph.initializer if uses_external_data(t)] == ["w"]
            super().__init__(source, options, **more)

    monkeypatch.setattr(storage, "LARGE", 1000)
    monkeypatch.setattr(sessions, "MAPPED", 2000)
    monkeypatch.setattr(storage, "IN_PIECES", 1)
    monkeypatch.setattr("onnxprune.graph.wire.WHOLE", 1000)
    one, two = tmp_path / "one.onnx", tmp_path / "two.onnx"
    save_model(net, one)
    save_model(net, two, limit=1)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    outputs = [session(source).run(None, {"x": x}) for source in (net, one, two)]
    assert [source == str(two) for source in given] == [False, False, True]
    assert all(np.array_equal(found, outputs[0]) for found in outputs)
    assert not (tmp_path / "model.data").exists()


def test_without_room_for_a_file_a_model_goes_as_a_message_where_it_fits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: Any) -> None:
        raise OutputError("no space")

    path = save_model(NET, tmp_path / "one.onnx")
    monkeypatch.setattr(sessions, "MAPPED", 40)
    monkeypatch.setattr(sessions, "write_passing", full)
    for source in (NET, path):
        session(source)
    monkeypatch.setattr(storage, "MESSAGE_LIMIT", 40)
    with pytest.raises(OutputError, match="no space"):
        session(NET)
