"""Folders of images come in the form the model takes, with class names or label maps."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxprune.data import PRESETS, load_data
from tests.support.samples import RNG, refused


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def pixels(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, two and one images of 4 x 5 pixels, and what is no image."""
    root = tmp_path / "images"
    save(root / "dog" / "b.png", pixels(4, 5, 3))
    save(root / "dog" / "a.png", pixels(4, 5, 3))
    save(root / "cat" / "deep" / "c.png", pixels(4, 5, 3))
    (root / "cat" / "Thumbs.db").write_bytes(b"no image")
    (root / "cat" / ".hidden.png").write_bytes(b"no image")
    (root / ".git").mkdir()
    (root / "readme.txt").write_text("no class")
    return root


# Folders


def test_a_folder_gives_classes_in_sorted_order(folder: Path) -> None:
    data = load_data(folder, shape=(3, 4, 5), preprocess="raw")
    assert data.classes == ("cat", "dog")
    assert data.y.tolist() == [0, 1, 1]
    assert data.y.dtype == np.int64
    files = ("cat/deep/c.png", "dog/a.png", "dog/b.png")
    for sample, file in zip(data.x, files, strict=True):
        expected = np.asarray(Image.open(folder / file)).transpose(2, 0, 1)
        np.testing.assert_array_equal(sample, expected)


@pytest.mark.parametrize(
    "kept", [".ipynb_checkpoints", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "__pycache__"]
)
def test_what_a_system_keeps_for_itself_is_no_sample(folder: Path, kept: str) -> None:
    expected = load_data(folder, shape=(3, 4, 5), preprocess="raw")
    for place in (folder / kept, folder / "dog" / kept, folder / "cat" / "deep" / kept / "more"):
        save(place / "a-checkpoint.png", pixels(4, 5, 3))
    data = load_data(folder, shape=(3, 4, 5), preprocess="raw")
    assert data.classes == ("cat", "dog")
    np.testing.assert_array_equal(data.x, expected.x)


def test_files_come_in_sorted_order(tmp_path: Path) -> None:
    for value in RNG.permutation(20).tolist():
        save(tmp_path / "a" / f"{value:02}.png", np.full((1, 1), value, np.uint8))
    data = load_data(tmp_path, shape=(1, 1, 1), preprocess="raw", limit=15)
    assert data.x.ravel().tolist() == list(range(15))


def test_images_without_labels_may_lie_anywhere_in_a_folder(folder: Path) -> None:
    shape = (3, 4, 5)
    save(folder / "loose.png", pixels(4, 5, 3))
    data = load_data(folder, shape=shape, preprocess="raw", labelled=False)
    labelled = load_data(folder, shape=shape, preprocess="raw")
    assert len(data) == len(labelled) + 1
    assert {image.tobytes() for image in labelled.x} < {image.tobytes() for image in data.x}


def test_integer_folder_names_are_the_labels(tmp_path: Path) -> None:
    for name in ("2", "10"):
        save(tmp_path / name / "a.png", pixels(2, 2))
    data = load_data(str(tmp_path), shape=(1, 2, 2))
    assert sorted(data.y.tolist()) == [2, 10]
    assert data.classes[10] == "10"
    assert len(data.classes) == 11


def test_dates_are_names_not_labels(tmp_path: Path) -> None:
    for name in ("20240101", "20240102"):
        save(tmp_path / name / "a.png", pixels(2, 2))
    assert load_data(tmp_path, shape=(1, 2, 2)).y.tolist() == [0, 1]


def test_images_are_resized_to_the_model(tmp_path: Path) -> None:
    path = save(tmp_path / "a" / "a.png", pixels(9, 7, 3))
    data = load_data(tmp_path, shape=(3, 4, 5), preprocess="raw")
    expected = np.asarray(Image.open(path).resize((5, 4), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(data.x[0], expected.transpose(2, 0, 1))


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, None, None), (3, 4, None)], ids=str)
def test_open_axes_keep_the_size_of_the_images(folder: Path, shape: tuple[int | None, ...]) -> None:
    assert load_data(folder, shape=shape).x.shape == (3, 3, 4, 5)


def test_open_axes_refuse_images_of_several_sizes(folder: Path) -> None:
    save(folder / "dog" / "c.png", pixels(6, 5, 3))
    message = refused(r"c\.png: 5 x 6 pixels", folder, (3, None, None))
    assert "c.png has 5 x 4" in message
    assert "resize the images" in message


@pytest.mark.parametrize("channels", [1, 3])
def test_the_layout_follows_the_shape(folder: Path, channels: int) -> None:
    first = load_data(folder, shape=(channels, 4, 5), preprocess="unit")
    last = load_data(folder, shape=(4, 5, channels), preprocess="unit")
    assert last.x.shape == (3, 4, 5, channels)
    np.testing.assert_array_equal(first.x, last.x.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_the_models(tmp_path: Path, mode: str, channels: int) -> None:
    path = tmp_path / "a" / "a.tiff"
    path.parent.mkdir()
    Image.fromarray(pixels(4, 5, 3)).convert(mode).save(path)
    data = load_data(tmp_path, shape=(channels, 4, 5), preprocess="raw")
    expected = np.asarray(Image.open(path).convert("RGB" if channels == 3 else "L"))
    np.testing.assert_array_equal(data.x[0], expected.reshape(4, 5, channels).transpose(2, 0, 1))


def test_sixteen_bits_keep_their_high_byte(tmp_path: Path) -> None:
    save(tmp_path / "a" / "a.png", np.array([[0, 0x1200, 0xFFFF]], np.uint16))
    data = load_data(tmp_path, shape=(1, 1, 3), preprocess="raw")
    assert data.x.ravel().tolist() == [0, 0x12, 0xFF]


def test_thirty_two_bits_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a" / "a.tiff", np.ones((4, 5), np.float32))
    refused(r"a\.tiff: pixels of 32 bits", tmp_path)


RGB = np.array([[[255, 0, 51]]], np.uint8)
EXPECTED = {
    "unit": [1.0, 0.0, 0.2],
    "imagenet": [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225],
    "caffe": [51 - 103.939, -116.779, 255 - 123.68],
    "tf": [1.0, -1.0, -0.6],
    "raw": [255.0, 0.0, 51.0],
    "bgr": [51.0, 0.0, 255.0],
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_computes_what_its_framework_does(tmp_path: Path, name: str) -> None:
    save(tmp_path / "a" / "a.png", RGB)
    data = load_data(tmp_path, shape=(3, 1, 1), preprocess=name)
    assert data.x.dtype == np.float32
    np.testing.assert_allclose(data.x.ravel(), EXPECTED[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "dtype", "preset"),
    [(3, np.float32, "imagenet"), (1, np.float32, "unit"), (3, np.uint8, "raw")],
)
def test_auto_is_the_usual_preset(
    folder: Path, channels: int, dtype: type[np.generic], preset: str
) -> None:
    shape = (channels, 4, 5)
    auto = load_data(folder, shape=shape, dtype=dtype)
    named = load_data(folder, shape=shape, dtype=dtype, preprocess=preset)
    assert auto.x.dtype == dtype
    np.testing.assert_array_equal(auto.x, named.x)


@pytest.mark.parametrize(
    ("match", "shape", "more"),
    [
        ("'caffe' is for 3 channels, the model takes 1", (1, 4, 5), {"preprocess": "caffe"}),
        ("'unit' does not fit uint8", (3, 4, 5), {"preprocess": "unit", "dtype": np.uint8}),
        ("'raw' does not fit int8", (3, 4, 5), {"dtype": np.int8}),
        (r"the model takes \[20\], an image needs \[C, H, W\]", (20,), {}),
        (r"the model takes \[\?, 4, 5\]", (None, 4, 5), {}),
        (r"the model takes \[4, 4, 5\]", (4, 4, 5), {}),
    ],
)
def test_a_model_that_images_do_not_fit_is_refused(
    folder: Path, match: str, shape: tuple[int | None, ...], more: dict[str, Any]
) -> None:
    refused(match, folder, shape, **more)


def test_a_broken_image_is_named(folder: Path) -> None:
    image = folder / "dog" / "a.png"
    image.write_bytes(image.read_bytes()[:60])
    refused(rf"{re.escape(str(image))}: not a readable image", folder)


@pytest.mark.parametrize("made", ["", "empty class"])
def test_a_folder_without_images_is_refused(tmp_path: Path, made: str) -> None:
    (tmp_path / made).mkdir(exist_ok=True)
    refused("no images, expected images, one folder of images per class", tmp_path)


def test_an_empty_class_keeps_its_label(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "bird").mkdir()
    data = load_data(folder, shape=(3, 4, 5))
    assert data.classes == ("bird", "cat", "dog")
    assert data.y.tolist() == [1, 2, 2]
    assert "'bird' has no images" in caplog.text


def test_limit_takes_the_first_of_each_class(folder: Path) -> None:
    data, full = (load_data(folder, shape=(3, 4, 5), limit=n) for n in (1, None))
    assert data.y.tolist() == [0, 1]
    np.testing.assert_array_equal(data.x, full.x[:2])


# Images with label maps


@pytest.fixture
def pairs_folder(tmp_path: Path) -> Path:
    """Three images of 8 x 6 pixels with their maps: grey, palette, and of another size."""
    root = tmp_path / "scenes"
    for name in ("a", "deep/b", "c"):
        save(root / "images" / f"{name}.jpg", pixels(6, 8, 3))
    save(root / "masks" / "a.png", RNG.choice(np.array([0, 1, 255], np.uint8), (6, 8)))
    palette = Image.fromarray(RNG.integers(0, 3, (6, 8), np.uint8))
    palette.putpalette(RNG.integers(0, 256, 768).tolist())
    (root / "masks" / "deep").mkdir()
    palette.save(root / "masks" / "deep" / "b.png")
    save(root / "masks" / "c.png", RNG.integers(0, 2, (12, 16)).astype(np.uint8))
    return root


def test_a_folder_of_images_and_masks_gives_maps(pairs_folder: Path) -> None:
    data = load_data(pairs_folder, shape=(3, 3, 4), preprocess="raw")
    assert (data.y.dtype, data.classes) == (np.int64, ("0", "1", "2"))
    for sample, label_map, name in zip(data.x, data.y, ("a", "c", "deep/b"), strict=True):
        image = Image.open(pairs_folder / "images" / f"{name}.jpg")
        expected = np.asarray(image.resize((4, 3), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(sample, expected.transpose(2, 0, 1))
        mask = Image.open(pairs_folder / "masks" / f"{name}.png")
        expected = np.asarray(mask.resize((4, 3), Image.Resampling.NEAREST))
        np.testing.assert_array_equal(label_map, expected)


def test_maps_follow_images_of_any_layout_and_size(pairs_folder: Path) -> None:
    (pairs_folder / "classes.txt").write_text("sky\nroad\n\ncar\n")
    assert load_data(pairs_folder, shape=(None, None, 3)).y.shape == (3, 6, 8)
    data = load_data(pairs_folder, shape=(5, 7, 3))
    assert (data.x.shape, data.y.shape) == ((3, 5, 7, 3), (3, 5, 7))
    assert data.classes == ("sky", "road", "car")


def test_images_with_masks_serve_without_labels_too(pairs_folder: Path) -> None:
    shape = (3, 6, 8)
    data = load_data(pairs_folder, shape=shape, labelled=False)
    np.testing.assert_array_equal(data.x, load_data(pairs_folder, shape=shape).x)
    assert data.y.tolist() == [0, 0, 0]


def test_limit_takes_maps_while_a_class_has_room(pairs_folder: Path) -> None:
    for name, value in (("a", 0), ("c", 255), ("deep/b", 1)):
        save(pairs_folder / "masks" / f"{name}.png", np.full((6, 8), value, np.uint8))
    full = load_data(pairs_folder, shape=(3, 6, 8))
    data = load_data(pairs_folder, shape=(3, 6, 8), limit=1)
    np.testing.assert_array_equal(data.x, full.x[[0, 2]])
    np.testing.assert_array_equal(data.y, full.y[[0, 2]])
    np.testing.assert_array_equal(load_data((full.x, full.y), shape=(3, 6, 8), limit=1).x, data.x)


@pytest.mark.parametrize(
    ("name", "made", "match"),
    [
        ("masks/a.png", None, r"images/a\.jpg: has no partner .*masks/a\.\*; expected one label"),
        ("images/c.jpg", None, r"masks/c\.png: has no partner .*images/c\.\*"),
        ("masks/a.png", np.zeros((6, 8, 3), np.uint8), r"a\.png: 3 channels, expected one"),
        ("masks/a.png", b"no image", r"a\.png: not a readable image"),
    ],
)
def test_pairs_that_are_none_are_refused(
    pairs_folder: Path, name: str, made: Any, match: str
) -> None:
    (pairs_folder / name).unlink()
    if isinstance(made, bytes):
        (pairs_folder / name).write_bytes(made)
    elif made is not None:
        save(pairs_folder / name, made)
    refused(match, pairs_folder)


def test_maps_where_nothing_counts_are_refused(pairs_folder: Path, tmp_path: Path) -> None:
    for name in ("a", "c", "deep/b"):
        save(pairs_folder / "masks" / f"{name}.png", np.full((6, 8), 255, np.uint8))
    for limit in (None, 1):
        refused("every pixel is labelled 255, which does not count", pairs_folder, limit=limit)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "scenes").rename(tmp_path / ".scenes")
    refused(r"no images, expected images/NAME\.\* and masks/NAME\.png", tmp_path)
