"""Samples that stay in their files are those that would be held, in order, and take no memory."""

import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from threading import get_ident
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import onnxprune
from onnxprune import memory
from onnxprune.data import Data, Inputs, Streamed, ahead, joined, load_data, pieces, read
from onnxprune.errors import DataError
from onnxprune.evaluation import Evaluator
from onnxprune.search.journal import _digest
from tests.support.models import images, model

Array = npt.NDArray[Any]

NET = """
net (float[N, 3, 8, 8] x) => (float[N, 3] y) <float[8, 3, 3, 3] w, float[3, 8] h> {
    a = Conv <pads = [1, 1, 1, 1]> (x, w)
    r = Relu (a)
    g = GlobalAveragePool (r)
    f = Flatten (g)
    y = Gemm <transB = 1> (f, h)
}
"""
PROTO = model(NET)
COUNT = 9
X = images(PROTO, COUNT)
Y = np.arange(COUNT) % 3


@pytest.fixture
def nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LITTLE", 0)
    monkeypatch.setattr(memory, "SHARE", 0)


def array_of(data: Data) -> Array:
    assert not isinstance(data.x, Inputs)
    return np.asarray(data.x)


def drawn(folder: Path) -> Path:
    for row, one in enumerate(X):
        place = folder / "images" / "abc"[row % 3]
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.uint8(255 * (one - X.min()) / np.ptp(X)).transpose(1, 2, 0)
        Image.fromarray(pixels).save(place / f"{row}.png")
    return folder / "images"


def of_npz(folder: Path) -> Path:
    np.savez(folder / "stored.npz", x=X, y=Y)
    return folder / "stored.npz"


def compressed(folder: Path) -> Path:
    np.savez_compressed(folder / "small.npz", x=X, y=Y)
    return folder / "small.npz"


def of_npy(folder: Path) -> Path:
    np.save(folder / "x.npy", X)
    return folder / "x.npy"


def other_numbers(folder: Path) -> Path:
    np.savez(folder / "other.npz", x=np.asfortranarray(X).astype(">f8"), y=Y)
    return folder / "other.npz"


def in_files(folder: Path) -> Path:
    (folder / "files").mkdir()
    for row, one in enumerate(X):
        np.savez(folder / "files" / f"{row}.npz", x=one, y=Y[row])
    return folder / "files"


SOURCES = (drawn, of_npz, compressed, of_npy, other_numbers, in_files)


@pytest.fixture(params=SOURCES, ids=lambda one: one.__name__)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return request.param(tmp_path)  # type: ignore[no-any-return]


def test_streamed_samples_are_the_samples(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (3, 8, 8)
    held = load_data(source, shape=shape)
    assert isinstance(held.x, np.ndarray)
    monkeypatch.setattr(memory, "LITTLE", 0)
    monkeypatch.setattr(memory, "SHARE", 0)
    data = load_data(source, shape=shape)
    assert isinstance(data.x, Streamed) or source.name == "other.npz"  # of another order
    np.testing.assert_array_equal(array_of(data), held.x)
    np.testing.assert_array_equal(data.y, held.y)
    assert data.classes == held.classes
    assert _digest(data) == _digest(held)
    np.testing.assert_array_equal(
        np.concatenate([np.asarray(x) for x, _ in data.batches(4)]), held.x
    )
    limited = load_data(source, shape=shape, limit=2)
    np.testing.assert_array_equal(
        array_of(limited), array_of(load_data(source, shape=shape, limit=2, memory=1))
    )


def test_a_search_ends_in_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"rate": 0.4, "threads": 1, "trust_baseline": True, "batch_size": 4}
    ends = []
    for little in (memory.LITTLE, 0):
        monkeypatch.setattr(memory, "LITTLE", little)
        monkeypatch.setattr(memory, "SHARE", 0)
        folder = tmp_path / str(little)
        folder.mkdir()
        ends.append(onnxprune.prune(PROTO, drawn(folder), **asked))
    assert ends[0].plan == ends[1].plan
    assert ends[0].model.SerializeToString() == ends[1].model.SerializeToString()


def test_inputs_of_several_names_are_streamed(tmp_path: Path, nothing_fits: None) -> None:
    given = {"a": X, "b": np.arange(COUNT, dtype=np.float32)[:, None]}
    np.savez(tmp_path / "two.npz", **given)
    forms = {"a": ((None, 3, 8, 8), np.float32), "b": ((None, 1), np.float32)}
    data = load_data(tmp_path / "two.npz", inputs=forms)
    assert isinstance(data.x, Inputs)
    assert data.x.streamed
    for name, array in data.x[2:5].feeds.items():
        np.testing.assert_array_equal(array, given[name][2:5])
    assert not isinstance(read(data.x), Streamed)


def choices(length: int) -> st.SearchStrategy[Any]:
    """What an axis of that length can be indexed by."""
    masks = st.lists(st.booleans(), min_size=length, max_size=length)
    kinds = [st.slices(length), masks.map(lambda rows: np.array(rows, np.bool_))]
    if length:
        numbers = st.lists(st.integers(-length, length - 1), max_size=4)
        kinds.append(numbers.map(lambda rows: np.array(rows, np.int64)))
    return st.one_of(kinds)


@given(st.data())
def test_rows_of_rows_are_those_of_the_array(draw: st.DataObject) -> None:
    streamed, array = Streamed.of(X), X
    assert isinstance(streamed, Streamed)
    for _ in range(2):
        rows = draw.draw(choices(len(array)))
        streamed, array = streamed[rows], array[rows]
        assert streamed.shape == array.shape
        assert streamed.nbytes == array.nbytes
        np.testing.assert_array_equal(np.asarray(streamed), array)
    if len(array):
        np.testing.assert_array_equal(streamed[len(array) - 1], array[-1])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.randoms())
def test_parts_are_read_as_one(sizes: list[int], random: Any) -> None:
    parts: list[Any] = [np.random.default_rng(k).random((n, 2)) for k, n in enumerate(sizes)]
    array = np.concatenate(parts)
    whole = joined([Streamed.of(parts[0]), *parts[1:]])
    rows = np.array(random.choices(range(len(array)), k=7))
    np.testing.assert_array_equal(np.asarray(whole[rows]), array[rows])
    np.testing.assert_array_equal(np.concatenate(list(pieces(whole))), array)  # type: ignore[arg-type]


def test_parts_of_several_shapes_are_not_joined() -> None:
    with pytest.raises(ValueError, match="cannot be joined"):
        joined([Streamed.of(np.zeros((2, 3))), np.zeros((2, 4))])


def test_what_is_made_ahead_comes_in_order_and_is_bounded() -> None:
    made: list[int] = []

    def make(item: int) -> int:
        time.sleep(0.001 * (item % 3))
        made.append(item)
        return get_ident()

    depths, threads = [], set[int]()
    for used, thread in enumerate(ahead(make, range(20), depth=3)):
        time.sleep(0.003)
        depths.append(len(made) - used)
        threads.add(thread)
    assert made == list(range(20))
    assert 1 < max(depths) <= 4  # the one that is used, and three ahead
    assert get_ident() not in threads


def test_an_error_ahead_comes_in_its_turn_and_stops_what_follows() -> None:
    seen: list[float] = []

    def inverse(number: int) -> float:
        seen.append(number)
        return 1 / number

    found = ahead(inverse, [1, 2, 0, *range(1, 100)])
    assert [next(found), next(found)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(found)
    assert len(seen) < 10
    endless: Iterator[int] = ahead(abs, iter(int, 1))
    assert next(endless) == 0
    endless.close()  # type: ignore[attr-defined]


def test_an_unreadable_image_is_named_when_its_turn_comes(
    tmp_path: Path, nothing_fits: None
) -> None:
    folder = drawn(tmp_path)
    (folder / "c" / "8.png").write_bytes(b"no image")
    data = load_data(folder, shape=(3, 8, 8))
    with pytest.raises(DataError, match=r"8\.png: not a readable image") as caught:
        Evaluator(data, threads=1)(PROTO)
    assert "\n" not in str(caught.value)


def broken(folder: Path, header: bytes, content: bytes = b"\0" * 64, **more: Any) -> Path:
    """An archive whose x has a header of one's own."""
    size = (-(10 + len(header) + 1)) % 64
    text = header + b" " * size + b"\n"
    magic = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little")
    with zipfile.ZipFile(folder / "x.npz", "w", **more) as archive:
        archive.writestr("x.npy", magic + text + content)
    return folder / "x.npz"


HOSTILE = (
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3, 8, 8), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3, 8, 8), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (-4, -4), }",
    b"{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,), }",
    b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    b"{'descr': 'nonsense', 'fortran_order': False, 'shape': (1,), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 'a'), }",
    b"{'''",
    b"((((((((((",
    b"",
)


@pytest.mark.parametrize("memory_mb", [None, 1])
@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("header", HOSTILE)
def test_what_a_file_says_of_itself_is_held_against_its_size(
    tmp_path: Path, header: bytes, kind: int, memory_mb: int | None
) -> None:
    path = broken(tmp_path, header, compression=kind)
    with pytest.raises(DataError, match=r"x\.npz: not a readable \.npz") as caught:
        load_data(path, shape=(3, 8, 8), memory=memory_mb)
    assert "\n" not in str(caught.value)


def test_a_disk_without_room_is_one_line(
    tmp_path: Path, nothing_fits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = compressed(tmp_path)

    class Full:
        name = "full"

        def write(self, piece: bytes) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", lambda **_: Full())
    with pytest.raises(DataError, match=r"no room in .* to unpack it .*set TMPDIR"):
        load_data(path, shape=(3, 8, 8))


def test_a_file_that_is_cut_while_it_is_read_is_one_line(
    tmp_path: Path, nothing_fits: None
) -> None:
    data = load_data(of_npy(tmp_path), shape=(3, 8, 8))
    (tmp_path / "x.npy").write_bytes(b"short")
    with pytest.raises(DataError, match="changed while it was read"):
        array_of(data)


PEAK = """
import resource, sys
import numpy as np
import onnxruntime
from onnxprune.data import load_data
from onnxprune.evaluation import Evaluator
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def judged(path):
    data = load_data(path, shape=(3, 8, 8), memory=8)
    return Evaluator(data, metric="fidelity", threads=1, batch_size=4096).outputs("net.onnx")
judged("few.npy")
before = peak()
judged("many.npy")
print(peak() - before)
"""


def test_evaluation_takes_a_few_batches_however_many_samples_there_are(tmp_path: Path) -> None:
    onnx.save(PROTO, tmp_path / "net.onnx")
    for name, count in (("few", 1 << 14), ("many", 1 << 19)):  # 13 MB and 403 MB of zeros
        np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", np.float32, (count, 3, 8, 8))
    done = subprocess.run(
        [sys.executable, "-c", PEAK], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 60 << 20  # the outputs of all samples are 6 MB
