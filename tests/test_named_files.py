"""What is said of a model that was read from a file names the file, not the exporter's graph."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import InvalidModel
from onnxprune.graph import naming_file
from tests.support.models import model

ODD = """
g (float[N,1,8,8] x) => (float[N,3] y) <float[16,1,3,3] w, float[3,16,1,1] v> {
  a = Conv<pads=[1,1,1,1]>(x, w)
  r = mine.Foo(a)
  b = Conv(r, v)
  p = GlobalAveragePool(b)
  y = Flatten(p)
}
"""
"""onnxruntime does not know Foo."""


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    proto = model(ODD.replace("mine.Foo", "Relu"))
    for node in proto.graph.node:
        if node.op_type == "Relu":
            node.op_type, node.domain = "Foo", "mine"
    proto.opset_import.append(onnx.helper.make_opsetid("mine", 1))
    onnx.save(proto, tmp_path / "odd.onnx")
    onnx.save(model(ODD.replace("mine.Foo", "Relu")), tmp_path / "even.onnx")
    return tmp_path / "odd.onnx"


X = np.random.default_rng(0).random((12, 1, 8, 8), np.float32)
DATA = {"labels": {"x": X, "y": np.arange(12) % 3}, "none": {"x": X}}


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("kind", DATA)
def test_a_model_that_onnxruntime_refuses(odd: Path, kind: str, trusted: bool) -> None:
    np.savez(odd.parent / "data.npz", **DATA[kind])
    with pytest.raises(InvalidModel) as raised:
        onnxprune.prune(
            odd, odd.parent / "data.npz", macs=0.8, trust_baseline=trusted, preprocess="raw"
        )
    assert str(raised.value).startswith(f"{odd}: onnxruntime refuses it: ")


CALLS: dict[str, Callable[[Path, Any], Any]] = {
    "inspect": lambda odd, _: onnxprune.inspect(odd),
    "compare": lambda odd, data: onnxprune.compare(odd.parent / "even.onnx", odd, data),
    "compare, the other way": lambda odd, data: onnxprune.compare(
        odd, odd.parent / "even.onnx", data
    ),
    "prune": lambda odd, data: onnxprune.prune(odd, data, macs=0.8),
    "apply": lambda odd, _: onnxprune.apply(odd, onnxprune.Plan({})),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_model_that_is_not_valid(odd: Path, call: str) -> None:
    np.savez(odd.parent / "data.npz", **DATA["none"])
    proto = onnx.load(odd)
    proto.graph.node[0].input[1] = "nowhere"
    onnx.save(proto, odd)
    with pytest.raises(InvalidModel) as raised:
        CALLS[call](odd, odd.parent / "data.npz")
    assert str(raised.value).startswith(f"{odd}: not valid ONNX: ")


def test_other_errors_and_models_in_memory_stay() -> None:
    for source, said in (("net.onnx", "weight 'w': is odd"), (None, "graph 'g': is odd")):
        with pytest.raises(InvalidModel, match=said), naming_file(source):
            raise InvalidModel(said)
    with pytest.raises(InvalidModel, match=r"^net\.onnx: is odd$"), naming_file("net.onnx"):
        raise InvalidModel("""model "it's": is odd""")
