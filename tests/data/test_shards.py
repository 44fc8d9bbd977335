"""WebDataset's tar files and Parquet hold the samples that a folder of images holds."""

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxprune.data import Data, Streamed, load_data
from onnxprune.errors import DataError

SHAPE = (3, 8, 8)
CLASSES = ("cat", "dog")


def drawn(number: int) -> bytes:
    rng = np.random.default_rng(number)
    kept = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (10, 12, 3), np.uint8)).save(kept, "png")
    return kept.getvalue()


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images of two classes, as class folders."""
    for number in range(10):
        place = tmp_path / "folder" / CLASSES[number // 5]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(drawn(number))
    return tmp_path / "folder"


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """The same in two tar files."""
    (tmp_path / "tars").mkdir()
    for part in range(2):
        files = {}
        for number in range(5 * part, 5 * part + 5):
            files[f"{number:04}.png"] = drawn(number)
            files[f"{number:04}.cls"] = b"%d\n" % part
        packed(tmp_path / "tars" / f"shard-{part}.tar", files)
    return tmp_path / "tars"


def assert_alike(found: Data, expected: Data) -> None:
    assert np.array_equal(np.asarray(found.x), np.asarray(expected.x))
    assert np.array_equal(found.y, expected.y)


def test_tar_files_hold_what_a_folder_holds(folder: Path, tars: Path) -> None:
    found = load_data(tars, shape=SHAPE)
    assert_alike(found, load_data(folder, shape=SHAPE))
    assert found.classes == ("0", "1")
    one = load_data(tars / "shard-1.tar", shape=SHAPE, limit=2)
    assert one.y.tolist() == [1, 1] and len(one.x) == 2


def test_images_that_do_not_fit_are_read_when_they_are_asked_for(
    folder: Path, tars: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.data.images.fits", lambda *_: False)
    found = load_data(tars, shape=SHAPE)
    assert isinstance(found.x, Streamed)
    moved = pickle.loads(pickle.dumps(found))  # to another process: where they lie, no pixels
    assert len(pickle.dumps(found)) < 4000
    monkeypatch.undo()
    assert_alike(moved, load_data(folder, shape=SHAPE))
    (tars / "shard-1.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"shard-1\.tar: changed while it was read"):
        np.asarray(moved.x[5:6])


def test_an_archive_that_is_unpacked_here_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.data.archives.fits", lambda *_, **__: False)
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((4, *SHAPE), np.float32))
    with pytest.raises(DataError, match=r"save it with np\.savez, or use --engine process"):
        pickle.dumps(load_data(tmp_path / "a.npz", shape=SHAPE))


def test_arrays_in_tar_files(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    files = {}
    for number, value in enumerate(values):
        kept = io.BytesIO()
        np.save(kept, value)
        files[f"{number}.npy"] = kept.getvalue()
    found = load_data(packed(tmp_path / "a.tar", files), shape=(2, 3))
    assert np.array_equal(np.asarray(found.x), values) and not found.labelled


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no samples; expected a tar file of images"),
        ({"1.cls": b"1"}, "no samples"),
        ({"1.png": b"", "1.cls": b"one"}, r"1\.cls holds no label"),
        ({"1.png": b"", "1.cls": b"-1"}, r"1\.cls holds no label"),
        ({"1.png": b"", "1.cls": b"9" * 50}, r"1\.cls holds no label"),
        ({"1.png": b"nothing", "1.cls": b"1"}, r"1\.png: not a readable image"),
        ({"1.npy": b"nothing", "1.cls": b"1"}, r"1\.npy: not a readable \.npy"),
        ({"1.png": drawn(1), "2.png": drawn(2), "2.cls": b"0"}, "some samples have labels"),
    ],
)
def test_tar_files_that_are_refused(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_data(packed(tmp_path / "a.tar", files), shape=SHAPE)


def test_what_is_no_tar_file(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no" * 600)
    with pytest.raises(DataError, match=r"a\.tar: not a readable tar file"):
        load_data(tmp_path / "a.tar", shape=SHAPE)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from onnxprune.errors import MissingPackage

    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingPackage, match=r'pip install "onnxprune\[parquet\]"'):
        load_data(tmp_path / "a.parquet", shape=SHAPE)


def written(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), path, **options)
    return path


def test_parquet_holds_what_a_folder_holds(folder: Path, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    images = [{"bytes": drawn(number), "path": f"{number}.png"} for number in range(10)]
    labels = [number // 5 for number in range(10)]
    names = b'{"info": {"features": {"label": {"names": ["cat", "dog"]}}}}'
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"image": images, "label": labels})
    table = table.replace_schema_metadata({b"huggingface": names})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    found = load_data(tmp_path / "a.parquet", shape=SHAPE)
    assert_alike(found, load_data(folder, shape=SHAPE))
    assert found.classes == CLASSES


def test_numbers_in_parquet(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
    columns = {"x": [list(map(list, one)) for one in values.astype(float)], "y": [0, 1, 0, 1, 0, 1]}
    found = load_data(written(tmp_path / "a.parquet", columns), shape=(2, 3))
    assert np.array_equal(np.asarray(found.x), values) and found.y.tolist() == columns["y"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"label": [0, 1]}, "columns label; expected one of images"),
        ({"image": [b"a", b"b"], "label": [-1, 0]}, "holds no class numbers"),
        ({"image": [b"a", b"b"], "label": [1.5, 0.0]}, "holds no class numbers"),
        ({"image": [b"a", b"b"], "label": [0, 1]}, "not a readable image"),
        ({"image": [None, b"b"], "label": [0, 1]}, "holds no bytes of an image"),
    ],
)
def test_parquet_that_is_refused(tmp_path: Path, columns: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_data(written(tmp_path / "a.parquet", columns), shape=SHAPE)


def test_what_is_no_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"a\.parquet: not a readable Parquet file"):
        load_data(tmp_path / "a.parquet", shape=SHAPE)
