"""Trained networks of other frameworks, turned into ONNX.

A converter is a function

    export(source: str, options: Options) -> Export

in a module named for its framework, which it imports when it is called. What follows is the same
for all: the model is checked, compared with what the framework computes, and written whole or not
at all. Imports errors, checks, files, plugins and evaluation.

* `pytorch`, `torchvision`: the converters
* `_export`: options, and what is done with an export
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from onnxprune.errors import check_name
from onnxprune.plugins import find_function

from . import pytorch, torchvision
from ._export import Export, Options, compare, finish, quiet, write

logger = logging.getLogger(__name__)

Converter = Callable[[str, Options], Export]

CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {"pytorch": pytorch.export, "torchvision": torchvision.export}
)
"""By the name of the framework."""

CONVERTER_NAMES = (*CONVERTERS, "module:function")
"""The names that the help lists."""

USER_FUNCTION = "a function (source, options) that returns an Export"

__all__ = [
    "CONVERTERS",
    "CONVERTER_NAMES",
    "Converter",
    "Export",
    "Options",
    "convert",
    "find_converter",
]


def find_converter(name: str | Converter) -> Converter:
    """Return the converter of a framework, or a user's function, also by `module:function`.

    Raises: UnknownName for a name that does not exist or a function that cannot be imported.
    """
    if callable(name):
        return name
    if ":" in name:
        return find_function(name, USER_FUNCTION)
    check_name("framework", name, CONVERTER_NAMES)
    return CONVERTERS[name]


def convert(
    source: str,
    output: str | Path,
    *,
    framework: str | Converter,
    input_shape: Sequence[int] | None = None,
    opset: int | None = None,
    weights: str | None = None,
    dynamic_batch: bool = True,
    exporter: Literal["dynamo", "classic"] = "dynamo",
    keep_batchnorm: bool = False,
    seed: int = 0,
) -> Path:
    """Write `source`, a network of `framework`, to `output` as ONNX, and return that path.

    `framework` is one of `CONVERTERS`, or a function like those, also as `module:function`.
    `input_shape` is the shape of one sample, without the batch axis. `opset` is the exporter's
    default unless given. `keep_batchnorm` leaves batch normalisation unfolded. `seed` draws the
    weights of a network that has none yet.

    Shapes:
        input: `[N, *input_shape]`, N named "batch" when `dynamic_batch`.

    Raises:
        InvalidType, InvalidValue: an option that is not as it should be.
        ConversionError: the source cannot be exported, or computes something else afterwards.
        MissingPackage: the framework, or onnxruntime, is not installed.
        OutputError: `output` cannot be written.
        UnknownName: there is no such framework, or nothing of the name `source`.
    """
    export = find_converter(framework)
    options = Options(
        input_shape=input_shape,  # type: ignore[arg-type]  # any sequence becomes a tuple
        opset=opset,
        weights=weights,
        dynamic_batch=dynamic_batch,
        exporter=exporter,
        keep_batchnorm=keep_batchnorm,
        seed=seed,
    )
    with quiet():
        exported = export(source, options)
        model = finish(exported.model, source, options)
        difference = compare(model, exported, source, options)
    logger.info("%s: the model is within %.1e of %s's outputs", source, difference, framework)
    return write(model, Path(output))
