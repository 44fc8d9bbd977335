"""Files of images start no program and take no more memory than they have pixels."""

import os
import struct
import subprocess
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxprune.data import find_images, image_size, load_data
from onnxprune.data.images import read_map
from onnxprune.data.pictures import FORMATS, MOST_PIXELS
from onnxprune.errors import DataError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) print\n%%EOF\n"
GRADIENT = np.arange(16 * 12 * 3, dtype=np.uint8).reshape(16, 12, 3)


def read_all(path: Path) -> str:
    """The line by which every reader of an image refuses it."""
    said = []
    for read in (image_size, read_map, lambda one: load_data(one.parent, shape=(3, 4, 4))):
        with pytest.raises(DataError) as caught:
            read(path)
        said.append(str(caught.value))
    assert len({line.partition(": ")[2] for line in said}) == 1
    return said[0]


def png(width: int, height: int, rows: bytes) -> bytes:
    """A PNG of grey pixels, whose header says what it likes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_a_name_does_not_make_a_format(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    (tmp_path / name).write_bytes(EPS)
    assert "not a readable image, expected PNG, JPEG, " in read_all(tmp_path / name)
    assert not started, "Pillow starts Ghostscript for an EPS"


def test_files_of_other_formats_are_no_images(tmp_path: Path) -> None:
    for name in ("a.eps", "a.pdf", "a.ps", "a.fli", "a.wmf", "a.png"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in find_images(tmp_path)] == ["a.png"]


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (2**31 - 1, 1), (8193, 8192)])
def test_an_absurd_size_is_refused_by_the_header(tmp_path: Path, width: int, height: int) -> None:
    (tmp_path / "a.png").write_bytes(png(width, height, bytes(100)))
    tracemalloc.start()
    began = time.process_time()
    line = read_all(tmp_path / "a.png")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert f"pixels, expected {MOST_PIXELS:,} at most" in line
    assert peak < 32 << 20
    assert time.process_time() - began < 2


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_that_are_read_are_read_and_cut_ones_are_not(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    Image.fromarray(GRADIENT).save(path, kind)
    assert image_size(path) == (12, 16)
    assert load_data(tmp_path, shape=(3, 4, 4)).x.shape == (1, 3, 4, 4)
    for share in (0.0, 0.05, 0.6):
        whole = path.read_bytes()
        (tmp_path / "cut").mkdir(exist_ok=True)
        (tmp_path / "cut" / "a.png").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match="not a readable image"):
            load_data(tmp_path / "cut", shape=(3, 4, 4))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert find_images(tmp_path) == []
    with pytest.raises(DataError, match=r"a\.png: is no file"):
        image_size(tmp_path / "a.png")
