"""Files of images, opened with care: few formats, and sizes that are looked at before pixels are.

Pillow has readers for forty formats; one of them starts another program (Ghostscript, for an EPS,
whatever the file is called), others are hardly ever used and hardly ever looked after.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

from onnxprune.errors import DataError
from onnxprune.plugins import first_line

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "TGA", "AVIF")
"""What is read, by Pillow's names."""
MOST_PIXELS = 1 << 26
"""An image of 8192 x 8192; a larger one is refused by its header, before anything is decoded."""


class Kept(Protocol):
    """An image that lies in another file."""

    @property
    def name(self) -> str:
        """What it is called there."""
        ...

    def read(self) -> bytes:
        """Return its bytes."""
        ...


@contextmanager
def opened(path: Path | Kept) -> Iterator[Image]:
    """Open the file of an image, or one that lies in another, of which nothing is decoded yet.

    Raises: DataError for a file that is none of `FORMATS` or too large, or where decoding it in the
    block raises anything.
    """
    from PIL import Image

    if isinstance(path, Path) and not path.is_file():
        raise DataError(f"{path}: {'is no file' if path.exists() else 'no such file'}; remove it")
    source = path if isinstance(path, Path) else io.BytesIO(path.read())
    try:
        with Image.open(source, formats=_formats()) as image:
            if image.width * image.height > MOST_PIXELS:
                _refuse(path, f"{image.width:,} x {image.height:,}")
            yield image
    except DataError:
        raise
    except Exception as error:  # decoders raise whatever a broken file leads them to
        if type(error).__name__ == "UnidentifiedImageError":
            raise DataError(
                f"{path}: not a readable image, expected {', '.join(_formats())}; convert or "
                "remove it"
            ) from error
        if type(error).__name__.startswith("DecompressionBomb"):
            _refuse(path, "far too many")
        raise DataError(
            f"{path}: not a readable image ({first_line(error)}); replace or remove it"
        ) from error


def _refuse(path: Path | Kept, found: str) -> NoReturn:
    raise DataError(
        f"{path}: {found} pixels, expected {MOST_PIXELS:,} at most; make it smaller or cut it up"
    )


@functools.cache
def suffixes() -> frozenset[str]:
    """Return the endings of files that are taken for images, in lower case."""
    from PIL import Image

    Image.init()
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in known if name in _formats())


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those that this Pillow reads."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)
