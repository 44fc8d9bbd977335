"""Arrays in `.npz` and `.npy` files: read into memory, or row by row where they would not fit.

A member that is stored as it is lies in its file as an array does in memory, so its rows are mapped
when they are asked for. One that is compressed is unpacked into a temporary file first.
"""

from __future__ import annotations

import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from onnxprune.arrays import IntArray
from onnxprune.data.inputs import Rows
from onnxprune.data.streamed import Streamed
from onnxprune.errors import DataError
from onnxprune.files import temporary_place
from onnxprune.memory import fits
from onnxprune.plugins import first_line

PIECE = 2**20
"""Bytes that are unpacked at once."""
LOCAL = 30
"""Bytes of what stands before a member of an archive, without its name. Source: APPNOTE 4.3.7."""
BROKEN = (
    *(OSError, ValueError, TypeError, SyntaxError, EOFError, KeyError, OverflowError),
    *(MemoryError, RecursionError, NotImplementedError, RuntimeError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
"""What NumPy and zipfile raise for a file that is none, or damaged."""


@dataclass(frozen=True, eq=False)
class Mapped:
    """Reads rows of an array that lies in a file, of which nothing stays in memory.

    `keeps` is what has to live as long: a temporary file.
    Units: offset, bytes.
    """

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    keeps: Any = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        if self.keeps is not None:
            raise DataError(
                "samples: a compressed .npz that does not fit into memory is unpacked here, where "
                "no other process finds it; save it with np.savez, or use --engine process"
            )
        return vars(self)

    def __call__(self, numbers: IntArray) -> npt.NDArray[Any]:
        """Shapes: numbers `[m]` -> `[m, ...]`."""
        try:
            held = np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path}: changed while it was read; start again") from error
        return np.array(held[numbers])


def read_arrays(path: Path, memory: int | None, whole: int | None = None) -> dict[str, Rows]:
    """Return the arrays of an `.npz` by name, or that of an `.npy` as x.

    Those of more bytes than fit stay in the file; `whole` is the size of all files of which this is
    one. Units: memory, MB.
    Raises: DataError for a file that is not one of these.
    """
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                return {"x": _array(path, file, 0, path.stat().st_size, memory, whole)}
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            found = {}
            for member in archive.infolist():
                if not member.filename.endswith(".npy"):
                    continue
                name = member.filename.removesuffix(".npy")
                with _opened(archive, member, file) as (opened, start):
                    found[name] = _array(path, opened, start, member.file_size, memory, whole)
            return found
    except BROKEN as error:
        kind = path.suffix.lower()
        raise DataError(f"{path}: not a readable {kind} ({first_line(error)})") from error


@contextmanager
def _opened(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, file: IO[bytes]
) -> Iterator[tuple[IO[bytes], int | None]]:
    """A member to read, and where it starts in the file if it lies there as it is."""
    start: int | None = None
    if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
        file.seek(member.header_offset)
        before = file.read(LOCAL)
        lengths = (int.from_bytes(before[k : k + 2], "little") for k in (26, 28))
        start = member.header_offset + LOCAL + sum(lengths)
    with archive.open(member) as opened:
        yield opened, start


def _array(
    path: Path, file: IO[bytes], start: int | None, size: int, memory: int | None, whole: int | None
) -> Rows:
    """The array that a file of NumPy's holds; what it says of itself is held against its size.

    Units: start, size, whole: bytes; memory: MB.
    """
    version = npy.read_magic(file)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    left, count = size - file.tell(), 1
    for length in shape:
        count *= length
    if count * max(dtype.itemsize, 1) > left:
        raise ValueError(f"its header says {list(shape)} of {dtype}, it holds {left} bytes")
    needed = count * dtype.itemsize
    held = not shape or (fortran and len(shape) > 1)
    if held or fits(max(needed, whole or 0), memory, shared=start is not None):
        return _held(file, shape, fortran, dtype, needed)
    if start is not None:
        mapped = Mapped(str(path.absolute()), start + file.tell(), shape, dtype)
    else:
        mapped = _unpacked(path, file, shape, dtype, needed)
    return Streamed(mapped, np.arange(shape[0]), shape[1:], dtype)


def _held(
    file: IO[bytes], shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any], needed: int
) -> npt.NDArray[Any]:
    """The array in memory, read into its own place."""
    values = np.empty(shape[::-1] if fortran else shape, dtype)
    view = values.reshape(-1).view(np.uint8) if needed else np.empty(0, np.uint8)
    for done, piece in _pieces(file, needed):
        view[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
    return values.T if fortran else values


def _unpacked(
    path: Path, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], needed: int
) -> Mapped:
    """The array in a temporary file, which goes when it is no longer needed.

    Raises: DataError where the disk has no room.
    """
    place = temporary_place()
    with _room(path, place):
        kept = tempfile.NamedTemporaryFile(prefix="onnxprune-", dir=place)
    for _, piece in _pieces(file, needed):
        with _room(path, place):
            kept.write(piece)
    with _room(path, place):
        kept.flush()
    return Mapped(kept.name, 0, shape, dtype, kept)


@contextmanager
def _room(path: Path, place: Path) -> Iterator[None]:
    """Say where there is no room.

    Raises: DataError.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: no room in {place} to unpack it ({error.strerror}); free some, set TMPDIR, "
            "or save it with np.savez in place of np.savez_compressed"
        ) from error


def _pieces(file: IO[bytes], needed: int) -> Iterator[tuple[int, bytes]]:
    """Yield what is left of a file, a little at a time, and how much came before."""
    done = 0
    while done < needed:
        piece = file.read(min(PIECE, needed - done))
        if not piece:
            raise EOFError("it ends before its array does")
        yield done, piece
        done += len(piece)
