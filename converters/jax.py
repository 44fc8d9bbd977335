"""JAX and Flax to ONNX, by jax2onnx. The model takes images as the network does, mostly NHWC."""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.errors import ConversionError, MissingPackage
from onnxprune.plugins import WHATEVER, find_function, first_line

from ._export import Export, Options, busy
from ._inputs import BATCH, check_all, needed, parameters, samples_of
from ._names import output_names
from ._windows import from_jax

FLAX = ("flax.linen", "flax.nnx")
POOLS = ("avg_pool", "max_pool", "min_pool")
PARAMETERS = ("window_shape", "strides", "padding", "count_include_pad")
"""Of flax's pools, behind their inputs."""

EXPECTED = (
    "a function of one batch, a Flax module that is one, a pair of a linen module and its "
    "variables, or a function without arguments that returns one of these"
)


def export(source: str, options: Options) -> Export:
    """Export what `package.module:function` or `path/to/file.py:function` stands for.

    It is a function of a batch of images, or of several inputs, whose weights are in it, a module
    of flax.nnx, a pair `(module, variables)` of flax.linen, or a function without arguments that
    returns one of these.

    Raises:
        ConversionError: it is something else, or jax2onnx does not convert it.
        MissingPackage: jax or jax2onnx is not installed.
        UnknownName: there is nothing of that name.
    """
    busy("importing JAX")
    jax, jax2onnx = _import()
    if options.input_shape is None and not options.input_shapes:
        raise ConversionError(
            f"{source}: the shape of its input is not known; give that of one sample, such as "
            "224,224,3"
        )
    if options.weights is not None:
        raise ConversionError(f"{source}: give the weights in the function, not as --weights")
    network = _network(find_function(source, EXPECTED), source)
    must = needed(parameters(network))
    shapes = samples_of(options.input_shape, options.input_shapes, must, source)
    check_all(must, shapes, source)
    if options.input_shape is not None:
        shapes = {"input": options.input_shape}
    batch = BATCH if options.dynamic_batch else 1
    asked = {"opset": options.opset} if options.opset is not None else {}
    busy("exporting it, by jax2onnx")
    try:
        model = jax2onnx.to_onnx(
            _naming(network),
            [(batch, *shape) for shape in shapes.values()],
            input_names=[*shapes],
            **asked,
        )
    except Exception as error:  # an exporter may raise anything
        raise ConversionError(f"{source}: jax2onnx failed: {first_line(error)}") from error

    model = from_jax(model)

    def run(*inputs: npt.NDArray[Any]) -> Sequence[npt.NDArray[Any]]:
        found = network(*map(jax.numpy.asarray, inputs))
        return [np.asarray(one) for one in jax.tree.leaves(found)]

    samples = [jax.ShapeDtypeStruct((1, *shape), jax.numpy.float32) for shape in shapes.values()]
    places, _ = jax.tree_util.tree_flatten_with_path(jax.eval_shape(network, *samples))
    names = output_names([tuple(map(_key, place)) for place, _ in places])
    fixed = None if options.dynamic_batch else 1
    size = next(iter(shapes.values()))
    return Export(model, run, size, fixed, by="jax2onnx", names=names)


def _naming(network: Callable[..., Any]) -> Callable[..., Any]:
    """The network as jax2onnx traces it: what takes the place of flax's pools wants names."""

    def traced(*inputs: Any) -> Any:
        before = {
            (module, pool): getattr(module, pool)
            for module in map(sys.modules.get, FLAX)
            for pool in POOLS
            if hasattr(module, pool)
        }
        for (module, pool), function in before.items():
            setattr(module, pool, partial(_named, function))
        try:
            return network(*inputs)
        finally:
            for (module, pool), function in before.items():
                setattr(module, pool, function)

    return traced


def _named(pool: Callable[..., Any], inputs: Any, *given: Any, **named: Any) -> Any:
    """Call a pool with all but its inputs by name."""
    return pool(inputs, **dict(zip(PARAMETERS, given, strict=False)), **named)


def _key(step: Any) -> str | int:
    """A step on the way to an output: the key of a dict, the place in a list, or a field."""
    found = next(getattr(step, name) for name in ("key", "idx", "name") if hasattr(step, name))
    return found if isinstance(found, int) else str(found)


def _import() -> tuple[ModuleType, ModuleType]:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        import jax
        import jax2onnx
    except ImportError as error:
        raise MissingPackage(
            f"{error.name} is not installed: pip install 'onnxprune[jax]'"
        ) from error
    return jax, jax2onnx


def _network(found: Any, source: str) -> Callable[..., Any]:
    """The function of a batch that a user's name stands for."""
    if not _takes_a_batch(found):
        try:
            found = found()
        except WHATEVER as error:
            raise ConversionError(
                f"{source}: calling it without arguments failed: {first_line(error)}"
            ) from error
    if isinstance(found, tuple) and len(found) == 2 and hasattr(found[0], "apply"):
        module, variables = found

        @functools.wraps(module.__call__)
        def apply(*inputs: Any) -> Any:
            return module.apply(variables, *inputs)

        return apply
    if hasattr(found, "apply") and hasattr(found, "init"):
        raise ConversionError(
            f"{source}: a module of flax.linen holds no weights; return (module, variables)"
        )
    if hasattr(found, "eval") and callable(found):
        found.eval()  # nnx: dropout and batch normalisation as when it is used
    if not callable(found):
        raise ConversionError(f"{source}: found {type(found).__name__}, expected {EXPECTED}")
    return found  # type: ignore[no-any-return]


def _takes_a_batch(found: Any) -> bool:
    """Whether it is called with something, and is no class."""
    if isinstance(found, type):
        return False
    empty = inspect.Parameter.empty
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):  # a function of C has none
        return True
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(one.default is empty and one.kind in kinds for one in parameters)
