"""The source tells which framework it is of, or a line says what fits."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from onnxprune.converters import _guess as guessing
from onnxprune.converters import convert, guess, is_foreign
from onnxprune.errors import NOTICE, MissingPackage
from tests.support.conversion import NETWORKS, refusal, save_script


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, data: bytes = b"") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(data)


def saved(model: str) -> None:
    write(f"{model}/saved_model.pb")


@pytest.mark.parametrize(
    ("source", "made", "framework"),
    [
        ("net.pt2", write, "pytorch"),
        ("net.keras", write, "keras"),
        ("net.h5", write, "keras"),
        ("net.tflite", write, "tflite"),
        ("net.pdmodel", write, "paddle"),
        ("inference.json", lambda path: write(path, b'{"base_code": {"magic": "pir"'), "paddle"),
        ("saved", saved, "tensorflow"),
        ("saved", lambda path: write(f"{path}/config.json"), "huggingface"),
        ("saved", lambda path: write(f"{path}/inference.pdmodel"), "paddle"),
    ],
)
def test_files_and_folders_tell(source: str, made: Callable[[str], None], framework: str) -> None:
    made(source)
    assert guess(source) == framework
    assert is_foreign(source)


@pytest.mark.parametrize(
    ("source", "framework"),
    [
        ("microsoft/resnet-18", "huggingface"),
        ("timm/resnet18.a1_in1k", "timm"),
        ("yolov8n.pt", "ultralytics"),
        ("yolo11s-seg.yaml", "ultralytics"),
        ("swin_v2_t", "torchvision"),
    ],
)
def test_names_tell(source: str, framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(guessing.COLLECTIONS, "timm")
    assert guess(source) == framework


@pytest.mark.parametrize(
    ("imports", "framework"),
    [
        ("from torch import nn", "pytorch"),
        ("import torch.nn.functional as F", "pytorch"),
        ("from torchvision import models", "pytorch"),
    ],
)
def test_the_module_of_a_function_tells(imports: str, framework: str) -> None:
    write("nets.py", f"{imports}\ndef build(): raise RuntimeError\n".encode())
    assert guess("nets.py:build") == framework


@pytest.mark.parametrize("package", ["jax", "keras"])
def test_the_packages_that_a_function_works_with_tell(
    package: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(f"{package}/__init__.py", b"def relu(x): return x\n")
    write("nets.py", f"from {package} import relu\ndef build(): return relu\n".encode())
    monkeypatch.syspath_prepend(str(folder))
    assert guess("nets.py:build") == package
    write(
        "both.py", f"import torch\nfrom {package} import relu\ndef build(): return relu\n".encode()
    )
    message = refusal(guess, "both.py:build")
    assert f"works with pytorch and {package}" in message
    assert f"give --from pytorch or --from {package}" in message
    del sys.modules[package]


def test_a_class_and_an_object_of_torch_tell() -> None:
    write("nets.py", NETWORKS.encode())
    assert {guess(f"nets.py:{name}") for name in ("Net", "instance", "make")} == {"pytorch"}


def test_checkpoints_tell_by_what_they_would_call(monkeypatch: pytest.MonkeyPatch) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1))
    torch.save(network, "whole.pt")
    torch.save(network.state_dict(), "state.pth")
    save_script(network, (1, 3, 4, 4), "script.pt")
    assert {guess(name) for name in ("whole.pt", "state.pth", "script.pt")} == {"pytorch"}
    kind = type("DetectionModel", (torch.nn.Module,), {"__module__": "ultralytics.nn.tasks"})
    with monkeypatch.context() as patch:
        for name in ("ultralytics", "ultralytics.nn", "ultralytics.nn.tasks"):
            patch.setitem(sys.modules, name, type(sys)(name))
        patch.setattr(sys.modules["ultralytics.nn.tasks"], "DetectionModel", kind, raising=False)
        torch.save({"model": kind()}, "best.pt")
    assert guess("best.pt") == "ultralytics"
    message = refusal(convert, "best.pt", "net.onnx")
    assert "files of Ultralytics are pickles" in message
    assert "--trust" in message


def test_a_name_of_two_collections_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    both = {name: lambda: ["resnet18"] for name in ("torchvision", "timm")}
    monkeypatch.setattr(guessing, "COLLECTIONS", both)
    message = refusal(guess, "resnet18")
    assert "in torchvision and timm; give --from torchvision or --from timm" in message
    assert "did you mean 'resnet18'?" in refusal(guess, "resnet_18")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "not installed: torchvision, timm" in refusal(guess, "resnet18")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("net.onnx", "it is ONNX already"),
        ("net.pdiparams", "give net.pdmodel beside it"),
        ("net.pb", "give the folder of the SavedModel"),
        ("net.safetensors", "these as --weights"),
        ("net.py", "Give net.py:function"),
        ("net.json", "no source that is known; expected a .pt2"),
        ("empty", "a folder without saved_model.pb"),
    ],
)
def test_what_no_framework_takes_is_refused(source: str, says: str) -> None:
    if source == "empty":
        Path(source).mkdir()
    else:
        write(source)
    assert says in refusal(guess, source)
    assert not is_foreign(source)


@pytest.mark.parametrize("suffix", guessing.SUFFIXES)
def test_a_file_that_is_not_there_is_said_first(suffix: str) -> None:
    assert f"gone{suffix}: no such file; give the path" in refusal(guess, f"gone{suffix}")


def test_the_guess_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(NOTICE, "onnxprune.converters")
    write("net.tflite")
    refusal(convert, "gone.pt", "net.onnx")
    assert "--from" not in caplog.text
    with pytest.raises(MissingPackage):
        convert("net.tflite", "net.onnx")
    assert "net.tflite: --from tflite, as its name or its file says" in caplog.text


@pytest.mark.parametrize(
    ("framework", "package", "extra"),
    [
        ("pytorch", "torch", "torch"),
        ("torchvision", "torchvision", "torchvision"),
        ("timm", "timm", "timm"),
        ("huggingface", "transformers", "huggingface"),
        ("ultralytics", "ultralytics", "ultralytics"),
        ("keras", "keras", "keras"),
        ("tensorflow", "tensorflow", "tensorflow"),
        ("tflite", "tensorflow", "tensorflow"),
        ("jax", "jax", "jax"),
        ("paddle", "paddle", "paddle"),
    ],
)
def test_a_framework_that_is_not_installed_names_its_extra(
    framework: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxprune.converters.torchvision import import_torchvision

    import_torchvision.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackage, match=rf"{package}.*pip install 'onnxprune\[{extra}\]'"):
        convert("net", "net.onnx", framework=framework, trust=True, input_shape=(8, 8, 3))
