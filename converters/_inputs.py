"""The inputs of a network: the shapes that are given for them, and values to try it on."""

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxprune.errors import ConversionError

BATCH = "batch"
"""The name of the axis of samples."""

OPEN = 4
"""A size where a model leaves one open."""

Shape = tuple[int, ...]


def samples_of(
    one: Shape | None, named: Sequence[tuple[str, Shape]], names: Sequence[str], source: str
) -> dict[str, Shape]:
    """Return the given shapes of one sample by the names of inputs, in the order of the network.

    `one` is that of the only input, `named` are those with a batch axis in front. Without `names`
    the network takes any, in the order in which they are given.
    Raises:
        ConversionError: a name that is none, or a shape without one although there are several.
    """
    if one is not None and len(names) > 1:
        raise ConversionError(
            f"{source}: has the inputs {', '.join(names)}; {each(names, (1, *one))}"
        )
    if one is not None:
        return {names[0] if names else "input": one}
    given = {name: shape[1:] for name, shape in named}
    for name in given:
        if names and name not in names:
            inputs = f"the inputs {', '.join(names)}" if len(names) > 1 else f"one, {names[0]}"
            raise ConversionError(f"{source}: has no input {name!r}; it has {inputs}")
    return {name: given[name] for name in names or given if name in given}


def check_all(names: Sequence[str], given: Mapping[str, Shape], source: str) -> None:
    """Raise ConversionError where an input that a network needs has no shape."""
    if left := [name for name in names if name not in given]:
        raise ConversionError(f"{source}: has the input {left[0]}, too; {each(left)}")


def each(names: Sequence[str], shape: Shape = (1, 3, 224, 224)) -> str:
    """Say how the shapes of several inputs are given."""
    text = ",".join(map(str, shape))
    return "give the shape of each by its name, such as " + " and ".join(
        f"{name}:{text}" for name in names
    )


def parameters(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """Return what a function takes by name, empty where it takes any number of inputs."""
    kinds = inspect.Parameter
    try:
        found = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a function of C has none
        return {}
    if any(one.kind is kinds.VAR_POSITIONAL for one in found.values()):
        return {}
    return {name: one for name, one in found.items() if one.kind is not kinds.VAR_KEYWORD}


def needed(takes: Mapping[str, inspect.Parameter]) -> list[str]:
    """Return the names of those parameters that have no default."""
    return [name for name, one in takes.items() if one.default is inspect.Parameter.empty]


def inputs_of(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that are no weights."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def set_batch(graph: onnx.GraphProto, batch: str | int) -> None:
    """Name the first axis of the inputs, wherever it occurs, or fix it.

    An input whose first axis has a size of its own, other than that of the first input, keeps it.
    """
    inputs = inputs_of(graph)
    firsts = [value.type.tensor_type.shape.dim[:1] for value in inputs]
    size = firsts[0][0].dim_value if firsts and firsts[0] else 0
    found = [dim for first in firsts for dim in first if dim.dim_value in (0, size)]
    old = {dim.dim_param for dim in found} - {""}
    others = (*inputs, *graph.value_info, *graph.output)
    axes = itertools.chain.from_iterable(value.type.tensor_type.shape.dim for value in others)
    for dim in (*found, *(dim for dim in axes if dim.dim_param in old)):
        if isinstance(batch, str):
            dim.dim_param = batch
        else:
            dim.dim_value = batch


def made_up(
    graph: onnx.GraphProto,
    first: Shape,
    tried: Sequence[Shape],
    batch: int,
    *,
    pixels: bool,
    seed: int,
) -> dict[str, npt.NDArray[Any]]:
    """Return random values for every input, in the model's order.

    `first` is the shape of one sample of the first input, `tried` are shapes of all inputs, with
    their first axes, of which the sizes are taken that the model leaves open; else they are 4.
    `pixels`: the first input is an image of 0 to 255.
    """
    rng, feeds = np.random.default_rng(seed), dict[str, npt.NDArray[Any]]()
    for k, value in enumerate(inputs_of(graph)):
        kind = value.type.tensor_type
        usual = tried[k] if k < len(tried) else (OPEN,) * len(kind.shape.dim)
        shape = tuple(
            dim.dim_value or (batch if not axis or dim.dim_param == BATCH else size)
            for axis, (dim, size) in enumerate(zip(kind.shape.dim, usual, strict=True))
        )
        if not k:
            shape = (*(shape[:1] or (batch,)), *first)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        made: npt.NDArray[Any]
        if dtype.kind == "f" and pixels and not k:
            made = rng.uniform(0, 255, shape)
        elif dtype.kind == "f":
            made = np.asarray(rng.standard_normal(shape, dtype=np.float32))
        else:
            made = rng.integers(0, 256 if dtype.kind in "iu" and not k else 2, shape)
        feeds[value.name] = np.asarray(made).astype(dtype)
    return feeds
