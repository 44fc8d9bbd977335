"""Trained networks of other frameworks, turned into ONNX.

A converter is a function

    export(source: str, options: Options) -> Export

in a module named for its framework, which it imports when it is called. What follows is the same
for all: the model is checked, compared with what the framework computes, and written whole or not
at all. What the framework knows of the model (how pixels are scaled, the names of the classes) goes
into its metadata. Imports errors, checks, files, graph, plugins, data and evaluation.

* `pytorch`, `torchvision`, `timm`, `huggingface`, `ultralytics`: the converters of torch's networks
* `keras`, `tensorflow`, `tflite`, `jax`, `paddle`: those of other frameworks'
* `_guess`: which of them a source is for
* `_export`: options, and what is done with an export; `_names`: what its outputs are called
* `_inputs`: the shapes of inputs, and values to try a network on; `_calls`: how torch's is called
* `_torch`: how torch writes a network; `_checkpoints`: what its files hold; `_windows`: JAX's pools
* `_noise`: what exporters print
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import onnx

from onnxprune.errors import NOTICE, ConversionError, InvalidValue, check_name
from onnxprune.files import temporary
from onnxprune.graph import InputShapes
from onnxprune.plugins import find_function

from . import (
    huggingface,
    jax,
    keras,
    paddle,
    pytorch,
    tensorflow,
    tflite,
    timm,
    torchvision,
    ultralytics,
)
from ._export import Export, Options, busy_told, compare, facts, finish, write
from ._guess import guess, is_foreign
from ._noise import quiet

logger = logging.getLogger(__name__)

Converter = Callable[[str, Options], Export]

CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "pytorch": pytorch.export,
        "torchvision": torchvision.export,
        "timm": timm.export,
        "huggingface": huggingface.export,
        "ultralytics": ultralytics.export,
        "keras": keras.export,
        "tensorflow": tensorflow.export,
        "tflite": tflite.export,
        "jax": jax.export,
        "paddle": paddle.export,
    }
)
"""By the name of the framework."""

BY_NAME = ("timm", "torchvision")
"""Those whose sources are names of architectures: without `weights`, nothing is trained."""

LARGEST = 2**28
"""Elements of a sample that networks are tried on; an image of 2^26 pixels has fewer."""

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
    "facts",
    "find_converter",
    "guess",
    "is_foreign",
    "to_onnx",
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
    framework: str | Converter | None = None,
    input_shape: Sequence[int] | None = None,
    input_shapes: InputShapes = (),
    opset: int | None = None,
    weights: str | None = None,
    dynamic_batch: bool = True,
    exporter: Literal["dynamo", "classic"] = "dynamo",
    keep_batchnorm: bool = False,
    trust: bool = False,
    seed: int = 0,
    on_step: Callable[[str], None] | None = None,
) -> Path:
    """Write `source`, a network of `framework`, to `output` as ONNX, and return that path.

    `framework` is one of `CONVERTERS`, or a function like those, also as `module:function`; without
    it, the source tells. Files that run code when they are loaded (pickles) are refused unless you
    `trust` them. `on_step` hears what is done next.
    `input_shape` is the shape of one sample, without the batch axis; `input_shapes` are those of
    several inputs by name, with a batch of one in front, as other functions take them. `opset` is
    the exporter's default unless given. `keep_batchnorm` leaves batch normalisation unfolded.
    `seed` draws the weights of a network that has none yet.

    Shapes:
        input: `[N, *input_shape]`, N named "batch" when `dynamic_batch`.

    Raises:
        InvalidType, InvalidValue: an option that is not as it should be.
        ConversionError: the source cannot be exported, or computes something else afterwards.
        MissingPackage: the framework, or onnxruntime, is not installed.
        OutputError: `output` cannot be written.
        UnknownName: there is no such framework, or nothing of the name `source`.
    """
    options = Options(
        input_shape=input_shape,  # type: ignore[arg-type]  # any sequence becomes a tuple
        input_shapes=input_shapes,  # type: ignore[arg-type]  # so does any mapping
        opset=opset,
        weights=weights,
        dynamic_batch=dynamic_batch,
        exporter=exporter,
        keep_batchnorm=keep_batchnorm,
        trust=trust,
        seed=seed,
    )
    _check_shapes(options)
    step = on_step or (lambda line: None)
    if framework is None:
        with quiet():
            framework = guess(source)
        logger.log(NOTICE, "%s: --from %s, as its name or its file says", source, framework)
    export = find_converter(framework)
    with quiet():
        step(f"{source}: loading it")
        with busy_told(lambda what: step(f"{source}: {what}")):
            exported = export(source, options)
        step(f"{source}: checking the model")
        model = finish(exported, source, options)
        exported = replace(exported, model=model)  # that of the exporter is no longer held
        step(f"{source}: comparing its outputs with the framework's")
        difference = compare(model, exported, source, options)
    if framework in BY_NAME and options.weights is None:
        logger.log(NOTICE, "%s: random weights; --weights takes trained ones (DEFAULT)", source)
    logger.info("%s: the model is within %.1e of %s's outputs", source, difference, framework)
    return write(model, Path(output))


def _check_shapes(options: Options) -> None:
    """Refuse shapes that are too large, without a batch of one, or given in two ways."""
    if options.input_shape is not None and options.input_shapes:
        raise InvalidValue(
            "input_shape: one sample's, without a name, is given beside input_shapes; give each "
            "shape by the name of its input, such as x:1,3,224,224"
        )
    for name, shape in options.input_shapes:
        if shape[0] != 1:
            raise InvalidValue(
                f"input_shapes {name!r}: is given the shape {','.join(map(str, shape))}; expected "
                f"a batch of one in front, such as {name}:1,{','.join(map(str, shape))}"
            )
    every = {"input_shape": options.input_shape or ()}
    every |= {f"input_shapes {name!r}": shape for name, shape in options.input_shapes}
    for what, shape in every.items():
        if (size := math.prod(shape)) > LARGEST:
            raise InvalidValue(
                f"{what} {shape}: has {size:,} elements; at most {LARGEST:,} are tried"
            )


def to_onnx(source: str | Path) -> onnx.ModelProto:
    """Return the ONNX model that a file or folder of another framework becomes.

    Raises: ConversionError and the others of `convert`.
    """
    with temporary() as folder:
        try:
            path = convert(str(source), folder / f"{Path(source).stem}.onnx")
        except ConversionError as error:
            raise ConversionError(f"{error}; onnxprune.converters.convert has options") from error
        return onnx.load(str(path))
