"""Commands take models of other frameworks, convert them, and say so."""

import json
from pathlib import Path

import onnx
import pytest
import torch
from click.testing import CliRunner, Result

from onnxprune.cli.commands import main
from onnxprune.converters._noise import quiet

FREE = ("--control", "one-shot", "--criterion", "magnitude", "--rate", "0.5", "--round-to", "1")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(net(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=(batch,))
    with quiet():
        torch.export.save(program, "net.pt2")
    return tmp_path


def net() -> torch.nn.Module:
    layers = (torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3))
    return torch.nn.Sequential(*layers).eval()


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_prune_converts_by_itself() -> None:
    done = call("prune", "net.pt2", "-o", "small.onnx", *FREE, "--plan", "plan.json")
    assert done.exit_code == 0, done.output
    assert "net.pt2: --from pytorch, as its name or its file says" in done.stderr
    assert "converted to ONNX for this command; onnxprune convert net.pt2 -o net.onnx keeps it" in (
        " ".join(done.stderr.split())
    )
    shapes = {t.name: tuple(t.dims) for t in onnx.load("small.onnx").graph.initializer}
    assert (4, 3, 3, 3) in shapes.values()
    assert [path.name for path in Path().glob("*.onnx")] == ["small.onnx"]
    again = call("apply", "net.pt2", "plan.json", "-o", "again.onnx")
    assert again.exit_code == 0, again.output
    assert Path("again.onnx").read_bytes() == Path("small.onnx").read_bytes()


def test_a_run_is_resumed_with_the_same_model() -> None:
    run = ("prune", "net.pt2", "-o", "small.onnx", *FREE, "--run-dir", "run")
    assert call(*run).exit_code == 0
    resumed = call(*run, "--resume")
    assert resumed.exit_code == 0, resumed.output


def test_inspect_converts_too() -> None:
    done = call("inspect", "net.pt2", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["filters"] == 12


def test_a_pickle_needs_trust() -> None:
    torch.save(net(), "net.pt")
    done = call("inspect", "net.pt")
    assert done.exit_code == 1
    assert "runs code when it is loaded" in done.stderr
    assert "--trust" in done.stderr
    trusted = call("inspect", "net.pt", "--trust")
    assert "the shape of its input is not known" in trusted.stderr
    assert "'onnxprune convert' takes more options" in trusted.stderr


def test_what_cannot_be_written_is_refused_before_it_is_converted() -> None:
    done = call("prune", "net.pt2", "-o", "no/such/folder/small.onnx", *FREE)
    assert done.exit_code == 1
    assert "converted" not in done.stderr
