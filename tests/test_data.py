"""Samples come in the form the model takes, or an error says what does not fit."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from onnxprune.data import PRESETS, Data, load_data
from onnxprune.errors import DataError

RNG = np.random.default_rng(0)
X = RNG.random((6, 3, 4, 5), np.float32)
Y = np.array([0, 1, 2, 0, 1, 0])


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


def refused(match: str, source: Any, shape: tuple[int | None, ...] = (3, 4, 5), **more: Any) -> str:
    with pytest.raises(DataError, match=match) as caught:
        load_data(source, shape=shape, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
        ("'mobile' is unknown, expected one of auto, unit", (3, 4, 5), {"preprocess": "mobile"}),
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
    refused("no images, expected one folder of images per class", tmp_path)


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


MAPS = RNG.choice([0, 1, 2, 255], (6, 4, 5))
MAP_SOURCES: dict[str, Callable[[], Any]] = {
    "Data": lambda: Data(X, MAPS, ("0", "1", "2")),
    "tuple": lambda: (X, MAPS),
    "with an axis of channels": lambda: (X, MAPS[:, None]),
    "bytes": lambda: [(X, MAPS.astype(np.uint8))],
    "batches": lambda: [(X[:4], MAPS[:4]), (X[4:], MAPS[4:])],
    "pairs": lambda: list(zip(X, MAPS, strict=True)),
}


@pytest.mark.parametrize("make", MAP_SOURCES.values(), ids=MAP_SOURCES)
def test_every_source_gives_the_same_maps(make: Callable[[], Any]) -> None:
    data = load_data(make(), shape=(3, None, 5))
    np.testing.assert_array_equal(data.x, X)
    np.testing.assert_array_equal(data.y, MAPS)
    assert (data.classes, data.y.dtype) == (("0", "1", "2"), np.int64)


def test_an_npz_may_hold_maps(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=MAPS.astype(np.uint8), classes=["sky", "road", "car"])
    data = load_data(tmp_path / "a.npz", shape=(3, 4, 5))
    np.testing.assert_array_equal(data.y, MAPS)
    assert data.classes == ("sky", "road", "car")


# Arrays, iterables, functions


def pairs() -> Iterator[tuple[np.ndarray, int]]:
    return zip(X, Y.tolist(), strict=True)


SOURCES: dict[str, Callable[[], Any]] = {
    "Data": lambda: Data(X, Y, ("0", "1", "2")),
    "tuple": lambda: (X, Y),
    "lists": lambda: (X.tolist(), Y.tolist()),
    "column of labels": lambda: (X, Y[:, None]),
    "float labels": lambda: (X, Y.astype(float)),
    "one batch": lambda: [(X, Y)],
    "batches": lambda: [[X[:4], Y[:4]], [X[4:], Y[4:]]],
    "two batches in a tuple": lambda: ((X[:4], Y[:4]), (X[4:], Y[4:])),
    "pairs": lambda: list(pairs()),
    "generator": pairs,
    "callable": lambda: pairs,
    "callable that returns a callable": lambda: lambda: lambda: (X, Y),
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_every_source_gives_the_same_samples(make: Callable[[], Any]) -> None:
    data = load_data(make(), shape=(3, None, 5))
    np.testing.assert_array_equal(data.x, X)
    np.testing.assert_array_equal(data.y, Y)
    assert data.classes == ("0", "1", "2")
    assert (data.x.dtype, data.y.dtype) == (np.float32, np.int64)


def test_arrays_that_fit_are_not_copied() -> None:
    assert np.shares_memory(load_data((X, Y), shape=(3, 4, 5)).x, X)


def test_an_npz_is_fed_as_it_is(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    np.savez(tmp_path / "b.npz", x=X, y=Y, classes=["cat", "dog", "fox"])
    data = load_data(str(tmp_path / "a.npz"), shape=(3, 4, 5), preprocess="imagenet")
    np.testing.assert_array_equal(data.x, X)
    assert load_data(tmp_path / "b.npz", shape=(3, 4, 5)).classes == ("cat", "dog", "fox")


MODULE = """
import numpy as np
from {neighbour} import LABELS
def load(): return np.ones((2, 3, 4, 5)), LABELS
def broken(): raise KeyError("no such thing")
def late():
    yield np.ones((3, 4, 5)), 0
    raise OSError("disk gone")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of samples in the current folder, with a neighbour it imports."""
    neighbour = f"neighbour_of_{tmp_path.name}"
    (tmp_path / f"{neighbour}.py").write_text("LABELS = [0, 1]")
    name = f"samples_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE.format(neighbour=neighbour))
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize("form", ["{}:load", "{}.py:load", "./{}.py:load"])
def test_a_function_is_imported_and_called(module: str, form: str) -> None:
    before = list(sys.path)
    data = load_data(form.format(module), shape=(3, 4, 5))
    assert data.x.shape == (2, 3, 4, 5)
    assert data.y.tolist() == [0, 1]
    assert sys.path == before


@pytest.mark.parametrize(
    ("form", "match"),
    [
        ("{}:nothing", "has no 'nothing'; expected package.module:function"),
        ("{}.py:broken", "KeyError: 'no such thing'"),
        ("{}:late", "OSError: disk gone"),
        ("nowhere.to_be:found", "ModuleNotFoundError: No module named 'nowhere'"),
        ("nowhere.py:load", "FileNotFoundError"),
    ],
)
def test_a_function_that_fails_is_named(module: str, form: str, match: str) -> None:
    source = form.format(module)
    assert refused(match, source).startswith(f"{source}: ")


def test_samples_of_a_function_are_checked_too(module: str) -> None:
    refused(rf"^{module}:load: a sample is \[3, 4, 5\]", f"{module}:load", (3, 8, 8))


@pytest.mark.parametrize(
    ("match", "source"),
    [
        (r"a sample is \[3, 4, 5\], expected \[3, 8, 8\]", (X, Y)),
        (r"expected \[3, 8, 8\]", (X[0], Y[:3])),
        (r"x is \[6, 3, 8, 8\] and y is \[5\]", (np.ones((6, 3, 8, 8)), Y[:5])),
        (r"y is \[2, 3\], expected one label or label map", (np.ones((2, 3, 8, 8)), np.eye(2, 3))),
        ("label -1, expected class numbers", (np.ones((2, 3, 8, 8)), [0, -1])),
        ("label -1, expected class numbers", (np.ones((2, 3, 8, 8)), np.full((2, 8, 8), -1))),
        (r"y is \[2, 3, 8, 8\], expected", (np.ones((2, 3, 8, 8)), np.ones((2, 3, 8, 8)))),
        (
            r"labels of a sample are \[4, 4\], those before \[8, 8\]; resize",
            [(np.ones((1, 3, 8, 8)), np.ones((1, k, k))) for k in (8, 4)],
        ),
        ("label 0.5, expected class numbers", (np.ones((2, 3, 8, 8)), [0, 0.5])),
        ("label nan, expected class numbers", (np.ones((2, 3, 8, 8)), [0, np.nan])),
        ("label 1e\\+300, expected class numbers", (np.ones((1, 3, 8, 8)), [1e300])),
        ("y is <U3, expected class numbers", (np.ones((2, 3, 8, 8)), ["cat", "dog"])),
        ("x is <U1, expected numbers", [(np.full((3, 8, 8), "a"), 0)]),
        ("x holds NaN or infinity as float32", [(np.full((3, 8, 8), np.nan), 0)]),
        ("cannot read int; give a folder", 3),
        (r"item 0 is ndarray, expected \(x, y\)", X),
        ("item 0 is str, expected", {"x": X, "y": Y}),
        ("item 1 is not an array", [(np.ones((3, 8, 8)), 0), ([[1], [1, 2]], 0)]),
        ("no samples; give a folder", []),
        ("no such file or folder; give", "nowhere"),
        ("no such file or folder; give", Path("nowhere.npz")),
        ("neither folder nor .npz", __file__),
    ],
)
def test_samples_that_do_not_fit_are_refused(match: str, source: Any) -> None:
    refused(match, source, (3, 8, 8))


def test_batches_of_several_sizes_are_refused() -> None:
    batches = [(X, Y), (X[..., :4], Y)]
    refused(r"a sample is \[3, 4, 4\], expected \[3, \?, \?\]", batches, (3, None, None))


@pytest.mark.parametrize(
    ("dtype", "value", "match"),
    [
        (np.uint8, 0.5, "x is float64 and the model takes uint8"),
        (np.uint8, 256.0, "x is float64 and the model takes uint8"),
        (np.float16, 1e6, "x holds NaN or infinity as float16"),
    ],
)
def test_a_cast_that_loses_values_is_refused(dtype: Any, value: float, match: str) -> None:
    refused(match, (np.full((1, 3, 4, 5), value), [0]), dtype=dtype)


def test_a_broken_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"no archive")
    refused("a.npz: not a readable .npz", path)
    np.savez(path, images=X)
    refused(r"a\.npz: holds images, expected x and y; save with np\.savez", path)


@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=20),
    limit=st.integers(1, 4),
    size=st.integers(1, 5),
)
def test_limit_does_not_depend_on_the_batches(labels: list[int], limit: int, size: int) -> None:
    x, y = np.arange(len(labels))[:, None], np.array(labels)
    whole = load_data((x, y), shape=(1,), limit=limit)
    parts = Data(x, y, ()).batches(size)
    batched = load_data(parts, shape=(1,), limit=limit)
    expected = [i for i, k in enumerate(labels) if labels[:i].count(k) < limit]
    assert whole.x.ravel().tolist() == batched.x.ravel().tolist() == expected
    assert batched.y.tolist() == y[expected].tolist()


@given(n=st.integers(1, 20), size=st.integers(1, 25))
def test_batches_cover_the_samples_in_order(n: int, size: int) -> None:
    data = Data(np.arange(n), np.arange(n), ())
    batches = list(data.batches(size))
    assert len(data) == n
    assert [len(x) for x, _ in batches[:-1]] == [size] * (len(batches) - 1)
    assert np.concatenate([x for x, _ in batches]).tolist() == list(range(n))
    assert all(np.array_equal(x, y) and np.shares_memory(x, data.x) for x, y in batches)
