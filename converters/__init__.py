"""Trained networks of other frameworks, turned into ONNX.

One module for each framework, named for it, with one function

    export(source: str, options: Options) -> Export

that imports the framework itself, inside the function. Adding a framework is adding such a file.
What follows is the same for all: the model is checked, compared with what the framework computes,
and written whole or not at all.
"""

import difflib
import importlib
import logging
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from onnxprune.errors import ConversionError

from ._export import Export, Options, compare, finish, quiet, write

logger = logging.getLogger(__name__)

__all__ = ["Export", "Options", "convert", "frameworks"]


def frameworks() -> tuple[str, ...]:
    """The names that `convert` accepts: the public modules of this package, in order."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name[0] != "_"))


def convert(
    source: str,
    output: str | Path,
    *,
    framework: str,
    input_shape: Sequence[int] | None = None,
    opset: int | None = None,
    weights: str | None = None,
    dynamic_batch: bool = True,
    exporter: Literal["dynamo", "classic"] = "dynamo",
    keep_batchnorm: bool = False,
    seed: int = 0,
) -> Path:
    """Write `source`, a network of `framework`, to `output` as ONNX, and return that path.

    `input_shape` is the shape of one sample, without the batch axis. `opset` is the exporter's
    default unless given. `keep_batchnorm` leaves batch normalisation unfolded. `seed` draws the
    weights of a network that has none yet.

    Shapes:
        input: `[N, *input_shape]`, N named "batch" when `dynamic_batch`.

    Raises:
        ConversionError: the source cannot be exported, or computes something else afterwards.
        MissingPackage: the framework is not installed.
        OutputError: `output` cannot be written.
    """
    known = frameworks()
    if framework not in known:
        close = difflib.get_close_matches(framework, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConversionError(
            f"unknown framework {framework!r}: expected one of {', '.join(known)}{hint}"
        )
    options = Options(
        input_shape=None if input_shape is None else tuple(input_shape),
        opset=opset,
        weights=weights,
        dynamic_batch=dynamic_batch,
        exporter=exporter,
        keep_batchnorm=keep_batchnorm,
        seed=seed,
    )
    module = importlib.import_module(f".{framework}", __name__)
    with quiet():
        exported: Export = module.export(source, options)
        model = finish(exported.model, source, options)
        difference = compare(model, exported, source, options)
    logger.info("%s: the model is within %.1e of %s's outputs", source, difference, framework)
    return write(model, Path(output))
