"""What is asked of Keras: here of a stand-in, as it is too large for these tests.

`.ci/frameworks keras keras-jax tensorflow` runs the real one on each backend.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch

from onnxprune.converters import Options, convert, keras
from onnxprune.errors import ConversionError, MissingPackage


class Model(torch.nn.Module):
    """A model whose exporter fails; Keras' models on torch are torch's modules, too."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        sizes = {"image": (None, 8, 8, 3), "depth": (None, 4, 4, 1)}
        self.inputs = self.input = [
            SimpleNamespace(shape=shape, dtype="float32", name=name)
            for name, shape in sizes.items()
        ]
        self.output_names = ["map", "kind"]
        self.conv, self.norm = torch.nn.Conv2d(3, 6, 3, 2, 1), torch.nn.LayerNorm(6)
        self.error = error

    def forward(self, x: Any, *, training: bool) -> Any:
        image, depth = x
        y = self.norm(self.conv(image.movedim(-1, 1)).movedim(1, -1)) * depth
        return [y, y.mean((1, 2))]

    def export(self, path: str, **asked: Any) -> None:
        raise self.error


def stand_in(backend: str, error: Exception) -> Any:
    return SimpleNamespace(
        Model=Model,
        Sequential=type("Sequential", (), {}),
        InputSpec=SimpleNamespace,
        config=SimpleNamespace(backend=lambda: backend),
        saving=SimpleNamespace(load_model=lambda path, **how: Model(error)),
        ops=SimpleNamespace(
            convert_to_tensor=torch.as_tensor, convert_to_numpy=lambda x: x.detach().numpy()
        ),
        tree=SimpleNamespace(
            flatten=lambda found: list(found),
            flatten_with_path=lambda found: [((k,), one) for k, one in enumerate(found)],
            pack_sequence_as=lambda shape, found: list(found),
        ),
    )


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "net.keras").touch()
    return str(tmp_path / "net.keras")


@pytest.mark.parametrize("dynamic", [True, False])
def test_where_keras_fails_on_torch_torchs_own_exporter_serves(
    dynamic: bool, monkeypatch: pytest.MonkeyPatch, file: str, tmp_path: Path
) -> None:
    """As with layer normalisation, for any batch size."""
    error = RuntimeError("Failed to export a node")
    monkeypatch.setattr(keras, "_import", lambda: stand_in("torch", error))
    torch.manual_seed(0)
    path = convert(file, tmp_path / "net.onnx", framework="keras", dynamic_batch=dynamic)
    graph = onnx.load(path).graph
    assert [one.name for one in graph.input] == ["image", "depth"]
    assert [one.name for one in graph.output] == ["map", "kind"]
    (first,) = graph.input[0].type.tensor_type.shape.dim[:1]
    assert (first.dim_param or first.dim_value) == ("batch" if dynamic else 1)


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_where_keras_fails_it_is_said_what_to_try(
    backend: str, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setattr(keras, "_import", lambda: stand_in(backend, RuntimeError("no way")))
    expected = (
        r"RuntimeError: no way; try a fixed batch, or another backend with KERAS_BACKEND=torch"
    )
    with pytest.raises(ConversionError, match=expected):
        keras.export(file, Options())


@pytest.mark.parametrize(
    ("backend", "advice"),
    [
        ("torch", r"pip install 'onnxprune\[keras\]'$"),
        ("jax", r"pip install 'onnxprune\[jax\]', or use KERAS_BACKEND=torch$"),
        ("tensorflow", r"pip install 'onnxprune\[tensorflow\]', or use KERAS_BACKEND=torch$"),
    ],
)
def test_the_extra_that_exports_on_a_backend_is_named(
    backend: str, advice: str, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    error = ImportError("No module named 'an_exporter'")
    monkeypatch.setattr(keras, "_import", lambda: stand_in(backend, error))
    monkeypatch.setattr(keras, "to_onnx", lambda *args, **asked: 1 / 0)
    expected = rf"^Keras on {backend} exports with .*\(.*'an_exporter'\): {advice}"
    with pytest.raises(MissingPackage, match=expected):
        keras.export(file, Options())
