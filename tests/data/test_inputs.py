"""Samples of any inputs, with or without labels, with targets of any type."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from onnxprune.data import ALL, Data, Inputs, by_name, joined, load_data
from onnxprune.errors import DataError
from tests.support.samples import RNG, refused

N = 6
A = RNG.random((N, 3, 4, 4), np.float32)
B = RNG.random((N, 5), np.float32)
Y = np.array([0, 1, 2, 0, 1, 0])
FORMS: dict[str, Any] = {
    "a": ((None, 3, None, 4), np.float32),
    "b": ((None, 5), np.float32),
}
STATES: dict[str, Any] = {"x": ((None, 8), np.float32), "h": ((2, None, 3), np.float32)}
"""Inputs whose batch axes stand at different places: a sample is a whole run."""
X, H = RNG.random((N, 1, 8), np.float32), RNG.random((N, 2, 1, 3), np.float32)
RATE: dict[str, Any] = {"x": ((None, 8), np.float32), "rate": ((), np.int64)}


def load(source: Any, forms: dict[str, Any] = FORMS, **more: Any) -> Data:
    return load_data(source, inputs=forms, **more)


def refused_in_one_line(match: str, source: Any, forms: dict[str, Any] = FORMS) -> None:
    with pytest.raises(DataError, match=match) as caught:
        load(source, forms)
    assert "\n" not in str(caught.value)


def pairs() -> list[Any]:
    return [({"a": a, "b": b}, y) for a, b, y in zip(A, B, Y, strict=True)]


def folder(at: Path, **extra: npt.NDArray[Any]) -> Path:
    """A file for each sample, as a run of the model takes it."""
    at.mkdir()
    for k in range(N):
        np.savez(at / f"{k:02}.npz", a=A[k], b=B[k], **{n: v[k] for n, v in extra.items()})
    return at


SOURCES: dict[str, Callable[[Path], Any]] = {
    "dict": lambda _: {"a": A, "b": B, "y": Y},
    "dict and labels": lambda _: ({"b": B, "a": A}, Y),
    "batches": lambda _: [({"a": A[:4], "b": B[:4]}, Y[:4]), ({"a": A[4:], "b": B[4:]}, Y[4:])],
    "single samples": lambda _: pairs(),
    "a function": lambda _: pairs,
    "a folder of .npz": lambda at: folder(at / "npz", y=Y),
    "Data": lambda _: Data(Inputs({"a": A, "b": B}), Y, ("0", "1", "2")),
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_every_source_gives_the_same_inputs(make: Callable[[Path], Any], tmp_path: Path) -> None:
    data = load(make(tmp_path))
    assert isinstance(data.x, Inputs) and tuple(data.x.arrays) == ("a", "b") and not data.x.apart
    np.testing.assert_array_equal(data.x.arrays["a"], A)
    np.testing.assert_array_equal(data.x.arrays["b"], B)
    assert data.y.tolist() == Y.tolist() and data.labelled


def test_an_npz_holds_inputs_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", a=A, b=B, y=Y, classes=["cat", "dog", "fox"])
    data = load(tmp_path / "s.npz")
    assert data.classes == ("cat", "dog", "fox") and len(data) == N
    np.savez(tmp_path / "one.npz", a=A)
    for forms in ({"a": FORMS["a"]}, {"other": FORMS["a"]}):
        if "a" in forms:
            np.testing.assert_array_equal(load(tmp_path / "one.npz", forms).x, A)
        else:
            refused_in_one_line("holds a, expected other, and y", tmp_path / "one.npz", forms)


def test_rows_and_batches_are_of_every_input() -> None:
    data = load({"a": A, "b": B, "y": Y})
    some = data.rows(np.array([4, 1]))
    assert isinstance(some.x, Inputs)
    np.testing.assert_array_equal(some.x.arrays["b"], B[[4, 1]])
    assert some.y.tolist() == [1, 1]
    parts = [x for x, _ in data.batches(4)]
    assert [len(x) for x in parts] == [4, 2]
    whole = joined(parts)
    assert isinstance(whole, Inputs) and isinstance(data.x, Inputs)
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(array, data.x.arrays[name])
    assert by_name(A, "a").arrays["a"] is A and by_name(whole, "a") is whole
    assert whole.nbytes == A.nbytes + B.nbytes


# Inputs without a common batch axis


@pytest.mark.parametrize("single", [False, True])
def test_a_sample_is_a_whole_run_where_inputs_have_no_common_axis(single: bool) -> None:
    source = [{"x": x, "h": h} for x, h in zip(X, H, strict=True)] if single else {"x": X, "h": H}
    data = load(source, STATES)
    assert isinstance(data.x, Inputs) and data.x.apart and len(data) == N
    batches = [x for x, _ in data.batches(4)]
    assert [len(x) for x in batches] == [1] * N
    for k, batch in enumerate(batches):
        assert isinstance(batch, Inputs) and batch.apart
        assert batch.feeds["x"].shape == (1, 8) and batch.feeds["h"].shape == (2, 1, 3)
        np.testing.assert_array_equal(batch.feeds["h"], H[k])


def test_a_number_is_an_input_too() -> None:
    source = [{"x": x, "rate": np.int64(16000 + k)} for k, x in enumerate(X)]
    data = load(source, RATE)
    assert isinstance(data.x, Inputs) and data.x.apart
    feeds = [x.feeds for x in data.x]
    assert [int(one["rate"]) for one in feeds] == [16000 + k for k in range(N)]
    assert all(one["rate"].shape == () and one["x"].shape == (1, 8) for one in feeds)


# Refused


@pytest.mark.parametrize(
    ("match", "source"),
    [
        ("samples: holds a, y, expected a and b, and y for labels", {"a": A, "y": Y}),
        ("samples: holds a, b, c, expected a and b", {"a": A, "b": B, "c": B}),
        ("a sample is one array, expected inputs a, b by name", (A, Y)),
        ("a sample is one array, expected inputs a, b by name", A),
        ("6 of 'a', 5 of 'b'; expected as many samples", {"a": A, "b": B[:5]}),
        (r"input 'b' of a sample is \[4\], expected \[5\]", {"a": A, "b": B[:, :4]}),
        ("each input is .* and y is", {"a": A, "b": B, "y": Y[:4]}),
        ("x is <U1, expected numbers", {"a": A, "b": np.full((N, 5), "a")}),
        ("some samples have labels and some have none", [*pairs(), {"a": A[0], "b": B[0]}]),
    ],
)
def test_inputs_that_do_not_fit_are_refused(match: str, source: Any) -> None:
    refused_in_one_line(match, source)


def test_images_alone_are_not_the_samples_of_several_inputs(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    refused_in_one_line(r"the model has 2 inputs \(a, b\); give a folder of \.npz", tmp_path)


# Without labels


UNLABELLED: dict[str, Callable[[], Any]] = {
    "an array": lambda: A,
    "an array and nothing": lambda: (A, None),
    "by name": lambda: {"x": A},
    "single samples": lambda: list(A),
    "pairs with nothing": lambda: [(a, None) for a in A],
    "a function": lambda: lambda: A,
}


@pytest.mark.parametrize("make", UNLABELLED.values(), ids=UNLABELLED)
@pytest.mark.parametrize("limit", [None, 2, 99])
def test_samples_need_no_labels(make: Callable[[], Any], limit: int | None) -> None:
    data = load_data(make(), shape=(3, 4, 4), limit=limit)
    count = min(limit or N, N)
    assert not data.labelled and data.classes == ALL and data.y.tolist() == [0] * count
    np.testing.assert_array_equal(data.x, A[:count])


@pytest.mark.parametrize("size", [1, 4, 6])
def test_a_limit_of_samples_without_labels_does_not_depend_on_the_batches(size: int) -> None:
    batches = [A[k : k + size] for k in range(0, N, size)]
    data = load_data(batches, shape=(3, 4, 4), limit=5)
    np.testing.assert_array_equal(data.x, A[:5])


def test_a_model_takes_no_labels_without_being_told(tmp_path: Path) -> None:
    folder(tmp_path / "npz", y=Y)
    data = load(tmp_path / "npz", labelled=False)
    assert not data.labelled and data.classes == ALL
    assert load(folder(tmp_path / "bare")).labelled is False


# Targets


def boxes() -> list[Any]:
    return [np.full((count, 4), k, np.float32) for k, count in enumerate((0, 1, 2, 2, 4, 5))]


def test_targets_may_be_of_any_type() -> None:
    for y in (RNG.random((N, 2, 3)), RNG.random(N), np.array(list("abcdef"))):
        data = load_data((A, y), shape=(3, 4, 4), any_target=True)
        assert data.targets is not None and data.labelled and data.y.tolist() == [0] * N
        np.testing.assert_array_equal(data.targets, y)
        refused("y is|label|expected", (A, y), (3, 4, 4))
    numbers = load_data((A, Y), shape=(3, 4, 4), any_target=True)
    assert numbers.y.tolist() == Y.tolist() and numbers.classes == ("0", "1", "2")


@pytest.mark.parametrize("size", [1, 2, N])
def test_objects_stay_one_for_each_sample(size: int) -> None:
    """Also where some batches are of one shape by chance, and where samples come one by one."""
    source: Any = [(A[k : k + size], boxes()[k : k + size]) for k in range(0, N, size)]
    if size == 1:
        source = list(zip(A, boxes(), strict=True))
    data = load_data(source, shape=(3, 4, 4), any_target=True)
    assert data.targets is not None and data.targets.dtype == object and len(data.targets) == N
    for found, expected in zip(data.targets, boxes(), strict=True):
        np.testing.assert_array_equal(found, expected)
    some = data.rows(np.array([3, 0])).targets
    assert some is not None and some[0].shape == (2, 4) and some[1].shape == (0, 4)


def test_maps_of_several_sizes_are_objects_too() -> None:
    maps = [RNG.random((2, k + 1)) for k in range(N)]
    data = load_data((A, maps), shape=(3, 4, 4), any_target=True)
    assert data.targets is not None
    assert [one.shape for one in data.targets] == [one.shape for one in maps]


def test_as_many_targets_as_samples() -> None:
    with pytest.raises(DataError, match="5 targets for 6 samples, expected one for each"):
        Data(A, np.zeros(N, np.int64), ALL, targets=np.arange(5))
    refused(r"x is \[6, 3, 4, 4\] and y is \[5", (A, np.arange(5) / 2), (3, 4, 4), any_target=True)


def test_an_input_may_have_the_name_of_the_targets() -> None:
    """Nothing is left to hold targets then: the samples have none."""
    found = load({"y": A, "b": B}, {"y": FORMS["a"], "b": FORMS["b"]})
    assert not found.labelled
    assert np.array_equal(found.x.arrays["y"], A)
