"""Files of Ultralytics' models are judged when they are written, by a validator of our own here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from onnxprune.integrations import ultralytics
from tests.support.models import images, model

NET = """
g (float[N,3,8,8] x) => (float[N,2] y) <float[16,3,3,3] w, float[2,16] h> {
  a = Conv<pads=[1,1,1,1]>(x, w)
  r = Relu(a)
  p = GlobalAveragePool(r)
  f = Flatten(p)
  y = Gemm<transB=1>(f, h)
}
"""


class Judge:
    """Counts how often it was asked; the score of a class is its share of the answers."""

    names = ("a", "b")
    asked = 0

    def __init__(self, path: Path, *_: Any) -> None:
        self.x = images(onnx.load(path), 8)

    def __call__(self, outputs: Mapping[str, npt.NDArray[Any]], _: Any) -> npt.NDArray[Any]:
        Judge.asked += 1
        (y,) = outputs.values()
        return np.bincount(y.argmax(1), minlength=2) / len(y)


def test_a_result_can_be_saved_at_once_and_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ultralytics, "Judge", Judge)
    monkeypatch.setattr(ultralytics, "exported", lambda weights, *_: weights)
    onnx.save(model(NET), tmp_path / "best.onnx")
    ask: dict[str, Any] = {"rate": 0.5, "criterion": "magnitude", "control": "one-shot"}
    ask |= {"compensate": "none", "threads": 1, "trust_baseline": True, "round_to": 1}
    place = tmp_path / "best.onnx", "data.yaml"
    ultralytics.prune(*place, output=tmp_path / "at_once.onnx", **ask)
    result = ultralytics.prune(*place, **ask)
    before = Judge.asked
    result.save(tmp_path / "later.onnx")
    assert Judge.asked > before, "what was written is judged as well"
    assert (tmp_path / "later.onnx").read_bytes() == (tmp_path / "at_once.onnx").read_bytes()
