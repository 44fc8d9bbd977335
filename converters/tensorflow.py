"""TensorFlow's SavedModels to ONNX, by tf2onnx. The model takes images as TensorFlow does: NHWC."""

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.errors import ConversionError, MissingPackage
from onnxprune.plugins import first_line

from ._export import Export, Options, busy, filled, without_leftovers
from ._inputs import samples_of

SIGNATURE = "serving_default"

CLOSED = ("_XlaMustCompile", "_noinline")
"""What TensorFlow writes on functions that it compiles, and on their calls."""


def export(source: str, options: Options) -> Export:
    """Export the signature `serving_default` of a SavedModel, or its only one.

    Raises:
        ConversionError: no SavedModel, or one that tf2onnx does not convert.
        MissingPackage: tensorflow or tf2onnx is not installed.
    """
    tf, tf2onnx = import_tensorflow()
    if options.weights is not None:
        raise ConversionError(f"{source}: has its own weights; give no --weights")
    busy("loading it")
    try:
        loaded = tf.saved_model.load(source)
    except Exception as error:  # it raises anything
        raise ConversionError(f"{source}: is no SavedModel: {first_line(error)}") from error
    signatures = dict(loaded.signatures)
    signature = signatures.get(SIGNATURE, next(iter(signatures.values()), None))
    if signature is None:
        raise ConversionError(
            f"{source}: has no signature; save it with tf.saved_model.save(..., signatures=...) or "
            "keras' Model.export"
        )
    specs = _specs(tf, signature, source, options)

    def call(*inputs: Any) -> Any:
        return signature(**{spec.name: one for spec, one in zip(specs, inputs, strict=True)})

    def run(*inputs: npt.NDArray[Any]) -> Sequence[npt.NDArray[Any]]:
        outputs = call(*map(tf.convert_to_tensor, inputs))
        return [np.asarray(outputs[name]) for name in sorted(outputs)]

    busy("exporting it, by tf2onnx")
    try:
        function = tf.function(call, input_signature=specs)
        with calls_opened(tf2onnx.tf_loader):
            model, _ = tf2onnx.convert.from_function(function, specs, opset=options.opset)
    except Exception as error:  # an exporter may raise anything
        raise ConversionError(f"{source}: tf2onnx failed: {first_line(error)}") from error
    shape = [None if size is None else int(size) for size in specs[0].shape]
    model = without_leftovers(model, [spec.name for spec in specs])
    names = sorted(signature.structured_outputs)
    return Export(model, run, tuple(filled(shape[1:])), shape[0], by="tf2onnx", names=names)


def import_tensorflow() -> tuple[ModuleType, ModuleType]:
    """Return tensorflow and tf2onnx, silenced.

    Raises: MissingPackage: one of them is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # it would take all memory of a GPU
    busy("importing TensorFlow")
    try:
        import tensorflow
        import tf2onnx
        import tf2onnx.convert
        import tf2onnx.tf_loader
    except ImportError as error:
        raise MissingPackage(
            f"{error.name} is not installed: pip install 'onnxprune[tensorflow]'"
        ) from error
    return tensorflow, tf2onnx


@contextmanager
def calls_opened(loader: Any) -> Iterator[None]:
    """Let tf2onnx, whose `tf_loader` is given, see what is in functions that TensorFlow compiles.

    Keras has grouped convolutions compiled, as those of ConvNeXt. TensorFlow puts the nodes of any
    other function in place of its call, and tf2onnx knows no calls.
    """
    optimise = loader.tf_optimize

    def optimised(inputs: list[str], outputs: list[str], graph: Any) -> Any:
        functions = graph.library.function
        nodes = itertools.chain(graph.node, *(one.node_def for one in functions))
        for one, name in itertools.product([*functions, *nodes], CLOSED):
            one.attr.pop(name, None)
        return optimise(inputs, outputs, graph)

    loader.tf_optimize = optimised
    try:
        yield
    finally:
        loader.tf_optimize = optimise


def _specs(tf: ModuleType, signature: Any, source: str, options: Options) -> list[Any]:
    """The inputs of a signature by name, of the given sizes."""
    declared = signature.structured_input_signature[1]
    given = samples_of(options.input_shape, options.input_shapes, [*declared], source)
    specs = []
    for name, spec in declared.items():
        if spec.shape.rank is None and name not in given:
            raise ConversionError(
                f"{source}: input {name!r} has any shape; "
                "give that of one sample, such as 224,224,3"
            )
        sizes = [None] if spec.shape.rank is None else list(spec.shape)
        if name in given:
            sizes = [sizes[0], *given[name]]
        if not options.dynamic_batch:
            sizes[0] = 1
        specs.append(tf.TensorSpec(sizes, spec.dtype, name=name))
    return specs
