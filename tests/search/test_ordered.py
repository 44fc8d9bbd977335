"""The how-to's measure of ordered classes: near is nearly right, and a search goes by it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from tests.support.models import model

PAGE = Path(__file__).parents[2] / "docs/how-to/any-task.md"
TEXT = """
net (float[N,1,8,8] face) => (float[N,12] age)
<float[8,1,3,3] w, float[8,8,3,3] v, float[12,8] u> {
  a = Conv(face, w)
  r = Relu(a)
  b = Conv(r, v)
  s = Relu(b)
  p = GlobalAveragePool(s)
  f = Flatten(p)
  age = Gemm<transB=1>(f, u)
}
"""


def written() -> str:
    """The code of the page."""
    blocks = PAGE.read_text(encoding="utf-8").split("```python\n")[1:]
    (code,) = (text for block in blocks if "def years" in (text := block.split("```")[0]))
    return code


def test_near_is_nearly_right() -> None:
    said: dict[str, Any] = {}
    exec(written(), said)
    scores = 50 * np.eye(12)[[3, 8]]
    np.testing.assert_allclose(said["years"](scores), [3, 8], atol=1e-6)
    found = [said["close"]({"age": scores}, [3 + by, 8 - by], [0, 1]) for by in (0, 1, 5)]
    np.testing.assert_allclose(found, [1, 1 / 1.2, 0.5], atol=1e-6)


def test_the_commands_files_are_what_a_search_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = model(TEXT)
    (tmp_path / "age.py").write_text(written(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    onnx.save(proto, "age.onnx")
    x = np.random.default_rng(0).normal(size=(20, 1, 8, 8)).astype(np.float32)
    np.savez("faces.npz", face=x)
    result = onnxprune.prune(
        proto, "age.py:faces", metric="age.py:close", macs=0.6, threads=1, device="cpu", round_to=1
    )
    report = result.report
    np.testing.assert_allclose(report["before"]["accuracy"]["per_class"], 1, atol=1e-5)
    assert report["after"]["macs"] <= 0.6 * report["before"]["macs"]
