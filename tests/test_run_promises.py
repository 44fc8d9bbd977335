"""What a run promises beside its result: what it takes of the machine, says first, and counts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto

import onnxprune
from onnxprune.errors import InvalidType, InvalidValue, OnnxPruneError, UnknownName
from onnxprune.graph import load_model, save_model
from onnxprune.relevance import one_thread
from onnxprune.search import Limits
from tests.support.models import model, run
from tests.support.runs import FREE, samples
from tests.support.small_net import Small


def test_what_decides_takes_one_thread_and_sets_the_others_free(small: Small) -> None:
    before, held = torch.get_num_threads(), []
    try:
        torch.set_num_threads(3)
        onnxprune.prune(
            small.proto,
            samples(small),
            on_state=lambda *_: held.append(torch.get_num_threads()),
            control="one-shot",
            rate=0.2,
            threads=2,
        )
        with pytest.raises(InvalidValue), one_thread():
            raise InvalidValue("x")
        assert set(held) == {1}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_mirror_out_of_memory_says_so(
    error: Exception, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr("torch.nn.functional.conv2d", exhausted)
    with pytest.raises(MemoryError) as caught:
        onnxprune.prune(small.proto, samples(small), control="one-shot", rate=0.2, threads=1)
    assert isinstance(caught.value, OnnxPruneError)
    assert "Conv 'one': out of memory; give --memory" in str(caught.value)


def test_a_target_that_is_met_already_is_said_to_be(
    small: Small, caplog: pytest.LogCaptureFixture
) -> None:
    result = onnxprune.prune(small.proto, **FREE, latency_ms=1e6, params=1e6)
    assert result.report["rate"] == 0
    assert "the model as it came meets the target (params 1e+06: it has 536" in caplog.text
    assert "latency_ms 1e+06: it has" in caplog.text
    caplog.clear()
    onnxprune.prune(small.proto, **FREE, rate=0.2)
    assert caplog.text == ""


def test_the_report_counts_the_file(small: Small, tmp_path: Path) -> None:
    without = ModelProto()
    without.CopyFrom(small.proto)
    for node in without.graph.node:
        if node.op_type == "Conv":
            del node.input[2:]
    kept = {name for node in without.graph.node for name in node.input}
    tensors = [t for t in without.graph.initializer if t.name in kept]
    del without.graph.initializer[:]
    without.graph.initializer.extend(tensors)
    result = onnxprune.prune(
        without, samples(small), control="one-shot", rate=0.3, compensate="bias", threads=1
    )
    assert len(result.model.graph.initializer) > len(tensors)
    path = save_model(result.model, tmp_path / "small.onnx")
    found = onnxprune.inspect(path)
    after = result.report["after"]
    assert (after["params"], after["macs"]) == (found["params"], found["macs"])
    assert after["filters"] == found["filters"]
    assert after["size_bytes"] == path.stat().st_size


WIDE = """
wide (float[N,1,8,8] x) => (float[N,3] y)
<float[16,1,3,3] w1, float[16,16,3,3] w2, float[16,3] w3> {
  one = Conv<pads=[1,1,1,1]>(x, w1)
  r = Relu(one)
  two = Conv(r, w2)
  p = GlobalAveragePool(two)
  f = Flatten(p)
  y = MatMul(f, w3)
}
"""


def test_a_model_beyond_the_limit_of_a_message_is_pruned(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.graph.storage.MESSAGE_LIMIT", 2000)
    wide = model(WIDE)
    result = onnxprune.prune(
        *(wide, (small.x, run(wide, small.x)[0].argmax(1))),
        **{"control": "one-shot", "size": 0.9, "threads": 1, "run_dir": tmp_path / "run"},
    )
    pruned = tmp_path / "run" / "pruned.onnx"
    (data,) = (tmp_path / "run").glob("pruned.onnx.*.data")
    assert load_model(pruned).graph.node == result.model.graph.node
    np.testing.assert_array_equal(
        run(load_model(pruned), small.x)[0], run(result.model, small.x)[0]
    )
    written = pruned.stat().st_size + data.stat().st_size
    assert result.report["after"]["size_bytes"] == pytest.approx(written, abs=50)


def test_a_pattern_that_matches_nothing_is_refused_before_anything_is_measured(
    small: Small,
) -> None:
    states: list[Any] = []
    with pytest.raises(UnknownName, match="exclude 'tree': matches no convolution; near names are"):
        onnxprune.prune(
            small.proto, samples(small), exclude=["tree"], on_state=lambda *_: states.append(1)
        )
    assert states == []
    with pytest.raises(InvalidType):
        Limits(exclude="tree")
