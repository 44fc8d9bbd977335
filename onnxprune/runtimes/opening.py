"""Deployed files, opened to be compared: with each other, or with an ONNX model."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from onnx import ModelProto

from onnxprune.errors import InvalidModel, MissingPackage
from onnxprune.graph import Graph, ModelSource, load_model
from onnxprune.records import read_record
from onnxprune.runtimes.process import Child, Place
from onnxprune.runtimes.registry import RUNTIMES, runtime_of
from onnxprune.runtimes.remote import Remote

RECORD = "deploy.json"
"""The file beside deployed ones that says what they were made of, and what was measured."""
QUANTISED = ".int8"
"""What stands behind the name of a model in INT8."""
PYTHONS = "ONNXPRUNE_PYTHON"
"""The environment variable that lists the Pythons which may be started because a record says so."""

logger = logging.getLogger(__name__)


def is_deployed(source: ModelSource) -> bool:
    """Whether a model is a file of another runtime."""
    if not isinstance(source, str | os.PathLike):
        return False
    return Path(source).suffix in {runtime.ending for runtime in RUNTIMES.values()} - {".onnx"}


def onnx_of(path: Path) -> Path:
    """Return the ONNX model that a deployed file was made of, which says how samples are read.

    A record that does not name the file is of another model.
    Raises: InvalidModel where it is not known, or not there any more.
    """
    record = _record(path)
    own = record if _rows(path, record) else {}
    names = [str(own["source"])] if own.get("source") else []
    runtime = runtime_of(path)
    stem = path.name.removesuffix(runtime.suffix).removesuffix(runtime.ending)
    beside = [path.with_name(f"{one}.onnx") for one in (stem, stem.removesuffix(QUANTISED))]
    for place in (*(path.parent / name for name in names), *beside):
        if place.is_file():
            return place
    said = f"no {RECORD} lies beside it"
    if record:
        said = f"{path.parent / RECORD} names {names[0] if names else 'other files'}"
    raise InvalidModel(
        f"{path}: the ONNX model that it was made of says how samples are read, and is not there "
        f"({said}); compare with that model, or put it beside the file"
    )


def onnx_behind(source: ModelSource) -> ModelProto | None:
    """Return a model, or that which a deployed file was made of, None where that is not there."""
    if not is_deployed(source):
        return load_model(source)
    try:
        return load_model(onnx_of(Path(str(source))))
    except InvalidModel:
        return None


@contextmanager
def running_file(path: Path, graph: Graph, threads: int) -> Iterator[Remote]:
    """Load a deployed file in a process of its own, where `deploy` ran it.

    Its inputs and outputs are named as those of the graph. `threads` 0 means all cores.
    Raises: RuntimeFailed where the runtime cannot; MissingPackage where it is not installed.
    """
    with ExitStack() as open_ones:
        try:
            child = open_ones.enter_context(
                Child(runtime_of(path), Place(threads, python=_python(path)))
            )
        except MissingPackage as error:
            raise MissingPackage(f"{path}: {runtime_of(path).name}: {error}") from error
        yield Remote(child, path, list(graph.inputs), graph.outputs)


def _python(path: Path) -> str:
    """The Python that `deploy` ran a file with, if it may be started; else our own."""
    rows = _rows(path, _record(path))
    named = (rows[0].get("python") if rows else None) or sys.executable
    if named in (sys.executable, *os.environ.get(PYTHONS, "").split(os.pathsep)):
        return str(named)
    logger.warning(
        "%s: was run with %s, which a record alone does not start: set %s=%s if you know it",
        path,
        named,
        PYTHONS,
        named,
    )
    return sys.executable


def size_of(path: Path) -> int:
    """Return how many bytes the files of a deployed model have.

    Raises: InvalidModel where one is not there.
    """
    files = runtime_of(path).files(path)
    for file in files:
        if not file.is_file():
            raise InvalidModel(f"{file}: no such file; expected what deploy wrote")
    return sum(file.stat().st_size for file in files)


def _rows(path: Path, record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of a record that name a file."""
    return [row for row in record.get("rows", ()) if path.name in row.get("files", ())]


def _record(path: Path) -> Mapping[str, Any]:
    """What `deploy` measured, if that lies beside a file."""
    record = path.parent / RECORD
    if not record.exists():
        return {}
    return read_record(
        record, "deployed", lambda line: InvalidModel(f"{line}; deploy the model again")
    )
