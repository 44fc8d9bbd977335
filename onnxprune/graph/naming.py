"""Naming a file in what is said of the model that was read from it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any

from onnxprune.errors import InvalidModel

OF_MODEL = re.compile(r"(graph|model) ('[^']*'|\"[^\"]*\"): ")
"""How a message begins that names a model by what its exporter called the graph."""


@contextmanager
def naming_file(source: Any) -> Iterator[None]:
    """Name the file in an error of a model where its graph is named; nothing of one in memory.

    Raises: InvalidModel as the body does, with the path in place of the name.
    """
    try:
        yield
    except InvalidModel as error:
        found = OF_MODEL.match(str(error))
        if found is None or not isinstance(source, str | PathLike):
            raise
        raise InvalidModel(f"{source}: {str(error)[found.end() :]}") from error
