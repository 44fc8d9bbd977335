"""export-weights: from a pruned model back to the torch module, or one line and no file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import onnxprune
from onnxprune.cli.commands import main
from onnxprune.modules import build_module, trace
from onnxprune.modules.tracing import outputs_of
from tests.support.models import run

CODE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 6, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    )

def broken():
    raise ValueError("no such data")

def number():
    return 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(CODE)
    module = build_module("nets.py:build")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)
    torch.save(module.state_dict(), "weights.pth")
    x = np.random.default_rng(0).normal(size=(12, 1, 12, 12)).astype(np.float32)
    np.save("x.npy", x)
    proto = trace(module, [torch.from_numpy(x[:2])], "classic")
    asked: dict[str, Any] = {"control": "one-shot", "criterion": "magnitude", "rate": 0.4}
    result = onnxprune.prune(proto, x, compensate="bias", round_to=1, **asked)
    onnxprune.graph.save_model(result.model, "small.onnx")
    result.plan.save("plan.json")
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["export-weights", *arguments])


GIVEN = ("small.onnx", "--plan", "plan.json", "--module", "nets.py:build", "-o", "small.pt")


@pytest.mark.parametrize("weights", [(), ("--weights", "weights.pth")], ids=["none", "given"])
def test_the_file_is_the_pruned_model(folder: Path, weights: tuple[str, ...]) -> None:
    done = call(*GIVEN, *weights)
    assert done.exit_code == 0 and "pruned module: small.pt" in done.stderr, done.output
    module = onnxprune.load_pruned_module(build_module("nets.py:build"), "small.pt")
    x = np.load("x.npy")
    expected = run(onnxprune.graph.load_model("small.onnx"), x)[0]
    assert np.abs(expected - expected.mean(0)).max() > 1e-2
    np.testing.assert_allclose(
        outputs_of(module, [torch.from_numpy(x)])[0].numpy(), expected, atol=1e-5
    )


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"nets.py:build": "nets.py:nothing"}, "has no 'nothing'"),
        ({"nets.py:build": "nets.py:broken"}, "calling it without arguments failed"),
        ({"nets.py:build": "nets.py:number"}, "expected a torch.nn.Module"),
        ({"plan.json": "nets.py"}, "not a plan"),
        ({"small.onnx": "plan.json"}, "not an ONNX model"),
        ({"small.pt": "nowhere/small.pt"}, "nowhere"),
    ],
)
def test_what_is_wrong_is_one_line_and_no_file(
    folder: Path, changed: dict[str, str], says: str
) -> None:
    done = call(*(changed.get(word, word) for word in GIVEN))
    assert done.exit_code == 1 and says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not Path("small.pt").exists()


@pytest.mark.parametrize("name", ["nothing.pth", "nets.py", "other.pth"])
def test_weights_of_another_module_are_refused(folder: Path, name: str) -> None:
    torch.save({"w": torch.zeros(1)}, "other.pth")
    done = call(*GIVEN, "--weights", name)
    assert done.exit_code == 1 and name in done.stderr and not Path("small.pt").exists()
