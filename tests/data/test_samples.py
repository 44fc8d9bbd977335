"""Arrays, iterables and functions come as samples, or an error says what does not fit."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.data import Data, load_data
from tests.support.samples import RNG, refused

X = RNG.random((6, 3, 4, 5), np.float32)
Y = np.array([0, 1, 2, 0, 1, 0])


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
def ends(): raise SystemExit(0)
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


@pytest.mark.parametrize("form", ["{}.py:load", "./{}.py:load"])
def test_a_function_is_imported_and_called(module: str, form: str) -> None:
    before = list(sys.path)
    data = load_data(form.format(module), shape=(3, 4, 5))
    assert data.x.shape == (2, 3, 4, 5)
    assert data.y.tolist() == [0, 1]
    assert sys.path == before


@pytest.mark.parametrize(
    ("form", "match"),
    [
        (
            "{}.py:nothing",
            "has no 'nothing'; expected package.module:function",
        ),
        ("{}:load", r"no module '.*' is installed, and .*\.py in the working folder is run as"),
        ("{}:2024", "'2024' is no name of a function"),
        ("{}.py:ends", "SystemExit: 0"),
        ("{}.py:broken", "KeyError: 'no such thing'"),
        ("{}.py:late", "OSError: disk gone"),
        ("nowhere.to_be:found", "no module 'nowhere.to_be' is installed; expected"),
        ("./sub/photos:val", "'./sub/photos' is no name of a module, and no .py file"),
        ("nowhere.py:load", "no such file"),
    ],
)
def test_a_function_that_fails_is_named(module: str, form: str, match: str) -> None:
    source = form.format(module)
    assert refused(match, source).startswith(f"{source}: ")


def test_samples_of_a_function_are_checked_too(module: str) -> None:
    source = f"{module}.py:load"
    refused(rf"^{source}: a sample is \[3, 4, 5\]", source, (3, 8, 8))


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
        (r"item 0 is str, expected \(x, y\) or inputs by name", ["x", "y"]),
        ("holds image, y, expected x, and y for labels", {"image": X, "y": Y}),
        (
            "some samples have labels and some have none",
            [(np.ones((3, 8, 8)), 0), np.ones((3, 8, 8))],
        ),
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
    refused(r"a sample is \[3, 4, 4\], expected \[3, 4, 5\]", batches, (3, None, None))


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
    refused(r"a\.npz: holds images, expected x, and y for labels; save with np\.savez", path)


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


# Label maps

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
