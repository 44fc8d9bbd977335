"""The label-free sample: its program trains, prunes by agreement alone, and says what that gave."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from onnxprune.samples.label_free import embedding
from tests.support.models import run


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1. Shapes: [n, k] -> [n, k]."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_view_is_the_picture_seen_otherwise() -> None:
    torch.manual_seed(0)
    x = embedding.pictures(40, np.random.default_rng(0))
    seen = embedding.view(x)
    assert seen.shape == x.shape == (40, 3, embedding.SIDE, embedding.SIDE)
    assert seen.min() >= 0 and seen.max() <= 1
    away = ((seen[:, None] - x[None]) ** 2).mean((2, 3, 4))
    assert (away.diagonal() > 1e-4).all(), "none stays as it was"
    assert (away.argmin(1) == torch.arange(40)).float().mean() > 0.5, "most resemble their own"


# the classic exporter announces its end, and torch 2.13 warns about its own pytree
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_program_trains_prunes_and_compares(tmp_path: Path) -> None:
    options = ["--steps", "25", "--max-drop", "0.2", "--reference-pictures", "24"]
    result = CliRunner().invoke(embedding.main, [*options, "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    said = re.findall(r"^(\w[\w ]*?) +([\d.,]+) +([\d.,]+)$", result.output, re.M)
    found = {name: [float(one.replace(",", "")) for one in (a, b)] for name, a, b in said}
    assert found["filters"][0] == 240 and found["macs"][1] < 0.9 * found["macs"][0]
    assert found["found again"][0] > 0.02, "chance finds one in 400"

    with np.load(tmp_path / "test.npz") as held:
        x = held["image"]
        assert list(held) == ["image"], "no labels"
    model, small = (onnx.load(tmp_path / name) for name in ("model.onnx", "small.onnx"))
    one, other = run(model, x)[0], run(small, x)[0]
    one, other = unit(one), unit(other)
    a, b = (unit(rows - one.mean(0)) for rows in (one, other))
    assert found["fidelity"] == [1.0, pytest.approx((a * b).sum(1).mean(), abs=2e-3)]
    said = {entry.key: entry.value for entry in small.metadata_props}
    assert said["onnxprune.outputs"] == '{"embedding": "vector"}'
