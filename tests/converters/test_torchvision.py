"""Networks of torchvision convert by name, with weights of a name or a file."""

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
import torch

from onnxprune.converters import convert
from onnxprune.converters.torchvision import import_torchvision
from onnxprune.errors import NOTICE
from tests.support.conversion import EXPORTERS, batch_of, refusal, run


def test_torchvision_models_convert_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(NOTICE, "onnxprune.converters")
    path = convert(
        "squeezenet1_1",
        tmp_path / "net.onnx",
        framework="torchvision",
        exporter="classic",
        input_shape=(3, 64, 64),
    )
    assert run(path, batch_of(2, 3, 64, 64))[0].shape == (2, 1000)
    assert "squeezenet1_1: random weights" in caplog.text


@pytest.mark.campaign
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_whole_networks_convert(
    name: str, exporter: Literal["dynamo", "classic"], tmp_path: Path
) -> None:
    shape = (3, 64, 64)
    path = convert(
        name, tmp_path / "net.onnx", framework="torchvision", input_shape=shape, exporter=exporter
    )
    assert run(path, batch_of(2, *shape))[0].shape == (2, 1000)


@pytest.mark.slow
def test_the_shape_of_a_sample_is_that_of_the_published_weights(tmp_path: Path) -> None:
    path = convert(
        "mobilenet_v2", tmp_path / "net.onnx", framework="torchvision", exporter="classic"
    )
    assert run(path, batch_of(1, 3, 224, 224))[0].shape == (1, 1000)


def test_torchvision_weights_are_a_name_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(weights: str) -> str:
        return refusal(
            convert,
            "squeezenet1_1",
            tmp_path / "net.onnx",
            framework="torchvision",
            weights=weights,
            input_shape=(3, 64, 64),
        )

    def offline(*arguments: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    vision = import_torchvision()
    monkeypatch.setattr(vision.models._api, "load_state_dict_from_url", offline)
    assert "IMAGENET1K_V1, DEFAULT, or the path" in of("IMAGENET")
    assert "cannot be downloaded: OSError: no network" in of("DEFAULT")
    assert "missing.pth: no such file" in of(str(tmp_path / "missing.pth"))
    state = vision.models.get_model("squeezenet1_1").state_dict()
    torch.save(state, tmp_path / "weights.pth")
    path = convert(
        "squeezenet1_1",
        tmp_path / "net.onnx",
        framework="torchvision",
        exporter="classic",
        weights=str(tmp_path / "weights.pth"),
        input_shape=(3, 64, 64),
    )
    stored = [onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer]
    first = next(iter(state.values())).numpy()
    assert any(array.shape == first.shape and np.array_equal(array, first) for array in stored)


def test_unknown_torchvision_models_have_suggestions(tmp_path: Path) -> None:
    def of(name: str) -> str:
        return refusal(convert, name, tmp_path / "net.onnx", framework="torchvision")

    assert "did you mean resnet18" in of("resnet_18")
    assert "see torchvision's list" in of("?")


def test_models_without_one_size_of_picture_need_a_shape(tmp_path: Path) -> None:
    message = refusal(convert, "lraspp_mobilenet_v3_large", tmp_path / "x", framework="torchvision")
    assert "the shape of its input is not known" in message
