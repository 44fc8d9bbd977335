"""What torch saved: weights in whatever wrapper, networks only from those who are trusted."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onnxprune.converters import convert
from onnxprune.converters._checkpoints import code_in, load_state
from tests.support.conversion import NETWORKS, batch_of, pytorch, refusal, run, save_script

SHAPE = (3, 12, 12)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETWORKS, encoding="utf-8")
    return tmp_path


def network() -> Any:
    names: dict[str, Any] = {"__name__": "nets"}
    exec(NETWORKS, names)
    torch.manual_seed(5)
    return names["Net"]().eval()


def small() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()


class Evil:
    """A pickle that runs a command."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model_state_dict": state, "optimizer": {}},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}},
    ],
)
def test_weights_are_found_in_what_loops_save(wrapped: Any) -> None:
    net = network()
    torch.save(wrapped(net.state_dict()), "w.pth")
    path = pytorch("nets.py:Net", Path("net.onnx"), exporter="classic", weights="w.pth")
    batch = batch_of(2, *SHAPE)
    with torch.no_grad():
        expected = net(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(run(path, batch)[0], expected, rtol=1e-4, atol=1e-5)


def test_nothing_in_a_checkpoint_is_run(folder: Path) -> None:
    torch.save({"state_dict": small().state_dict(), "more": Evil()}, "w.pth")
    message = refusal(pytorch, "nets.py:Net", Path("net.onnx"), weights="w.pth")
    assert "is a pickle that runs code when it is loaded" in message
    assert "--trust" in message
    assert "mkdir" in message
    assert not (folder / "harm").exists()
    assert any(name.endswith("mkdir") for name in code_in("w.pth"))
    load_state("w.pth", trust=True)
    assert (folder / "harm").exists()


def test_a_pickled_network_needs_trust() -> None:
    torch.save(small(), "net.pt")
    message = refusal(convert, "net.pt", "net.onnx", input_shape=SHAPE)
    assert "is a pickle that runs code when it is loaded" in message
    assert "torch.nn.modules.activation.ReLU" in message
    path = convert("net.pt", "net.onnx", input_shape=SHAPE, trust=True, exporter="classic")
    assert run(path, batch_of(2, *SHAPE))[0].shape == (2, 4, 10, 10)


def test_torchscript_holds_its_network() -> None:
    save_script(small(), (1, *SHAPE), "net.pt")
    path = convert("net.pt", "net.onnx", input_shape=SHAPE)
    assert run(path, batch_of(2, *SHAPE))[0].shape == (2, 4, 10, 10)
    assert "the shape of its input is not known" in refusal(convert, "net.pt", "net.onnx")
    assert "its own weights" in refusal(convert, "net.pt", "net.onnx", weights="net.pt")


def test_weights_alone_ask_for_the_network() -> None:
    torch.save(small().state_dict(), "w.pth")
    message = refusal(convert, "w.pth", "net.onnx")
    assert "holds weights and no network" in message
    assert "my/model.py:build --weights w.pth" in message
    assert "gone.pth: no such file" in refusal(convert, "gone.pth", "net.onnx")


def test_a_program_is_read_without_running_what_it_holds(folder: Path) -> None:
    program = torch.export.export(small(), (torch.zeros(2, *SHAPE),))
    torch.export.save(program, "good.pt2")
    torch.save({"evil": Evil()}, "evil.pt")
    with zipfile.ZipFile("good.pt2") as good, zipfile.ZipFile("bad.pt2", "w") as bad:
        for entry in good.infolist():
            data = good.read(entry)
            if "sample_inputs" in entry.filename:
                data = Path("evil.pt").read_bytes()
            bad.writestr(entry, data)
    message = refusal(convert, "bad.pt2", "net.onnx")
    assert "bad.pt2: not a program" in message
    assert not (folder / "harm").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    assert convert("good.pt2", "net.onnx").exists()


def test_pickled_objects_in_a_program_are_refused() -> None:
    program = torch.export.export(small(), (torch.zeros(2, *SHAPE),))
    torch.export.save(program, "net.pt2")
    with zipfile.ZipFile("net.pt2", "a") as archive:
        archive.writestr("net/data/constants/opaque_obj_0", b"junk")
    message = refusal(convert, "net.pt2", "net.onnx")
    assert "holds pickled objects" in message
    assert "--trust" in message
