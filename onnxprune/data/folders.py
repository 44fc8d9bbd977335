"""Folders of images: one folder per class, images with their label maps, or images alone."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from onnxprune.data.forms import Wanted
from onnxprune.data.images import decode, find_images, find_pairs, has_masks, is_hidden, read_map
from onnxprune.data.label_maps import resize
from onnxprune.data.layouts import check_layout, holds_images_only
from onnxprune.data.samples import ALL, Data
from onnxprune.data.targets import MAX_LABEL, Room, name_by_number, nothing_counts, read_labels
from onnxprune.errors import DataError
from onnxprune.records import read_text

logger = logging.getLogger(__name__)


def read_folder(folder: Path, form: Wanted) -> Data:
    """Read a folder of images, as its layout says.

    Raises: DataError where it holds none, or is of a layout that is not read.
    """
    if form.inputs:
        names = ", ".join(form.inputs)
        raise DataError(
            f"{folder}: the model has {len(form.inputs)} inputs ({names}); give a folder of .npz "
            "files with the inputs of a sample by name, or package.module:function"
        )
    if has_masks(folder):
        return _from_pairs(folder, form)
    return _from_classes(folder, form)


def _from_classes(folder: Path, form: Wanted) -> Data:
    """Read a folder of class folders, or of images without classes."""
    if form.labelled:
        check_layout(folder)
    if not form.labelled or holds_images_only(folder):
        return _unlabelled(folder, form)
    folders = [one for one in sorted(folder.iterdir()) if one.is_dir() and not is_hidden(one)]
    found = {one.name: find_images(one)[: form.limit] for one in folders}
    files = [file for group in found.values() for file in group]
    if not files:
        raise _no_images(folder)
    labels, classes = list(range(len(found))), tuple(found)
    if all(name.isascii() and name.isdecimal() and int(name) <= MAX_LABEL for name in found):
        labels = [int(name) for name in found]
        classes = tuple(map(str, range(max(labels) + 1)))
    y = np.repeat(np.array(labels, np.int64), [len(group) for group in found.values()])
    for name, group in found.items():
        if not group:
            logger.warning("%s: class folder %r has no images", folder, name)
    names = tuple(str(file.relative_to(folder)) for file in files)
    return Data(decode(files, form), y, classes, form.preprocess, names=names)


def _unlabelled(folder: Path, form: Wanted) -> Data:
    files = find_images(folder)[: form.limit]
    if not files:
        raise _no_images(folder)
    y = np.zeros(len(files), np.int64)
    names = tuple(str(file.relative_to(folder)) for file in files)
    return Data(decode(files, form), y, ALL, form.preprocess, labelled=False, names=names)


def _no_images(folder: Path) -> DataError:
    return DataError(
        f"{folder}: no images, expected images, one folder of images per class, or images/ and "
        "masks/"
    )


def _from_pairs(folder: Path, form: Wanted) -> Data:
    """Read images with their label maps, these resized as the images are, by the nearest pixel."""
    pairs = find_pairs(folder)
    if not pairs:
        raise DataError(f"{folder}: no images, expected images/NAME.* and masks/NAME.png")
    if not form.labelled:
        x, y = decode([image for image, _ in pairs], form), np.zeros(len(pairs), np.int64)
        return Data(x, y, ALL, form.preprocess, labelled=False)
    maps = [read_labels(read_map(mask)[None], str(mask))[0] for _, mask in pairs]
    room = Room(form.limit)
    rows = [row for row, one in enumerate(maps) if room.takes(one)]
    if not rows:
        raise nothing_counts(str(folder))
    x = decode([pairs[row][0] for row in rows], form)
    size = x.shape[1:3] if form.is_last else x.shape[2:]
    y = np.stack([resize(maps[row], size) for row in rows])
    names = folder / "classes.txt"
    if not names.is_file():
        return Data(x, y, name_by_number(y, str(folder)), form.preprocess)
    lines = read_text(names, DataError).splitlines()
    classes = tuple(filter(None, map(str.strip, lines)))
    return Data(x, y, classes, form.preprocess)
