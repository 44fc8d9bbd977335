"""The graph of a module, whose constants carry the names of its parameters.

Nothing is folded: batch normalisation stands behind its convolution, as it does in the module.
"""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

from onnxprune.checks import kind_of
from onnxprune.errors import ConversionError, InvalidType
from onnxprune.files import temporary
from onnxprune.graph import AS_THEY_LIE, Weight, Weights, fill, is_large, shell
from onnxprune.ops._torch import torch
from onnxprune.plugins import first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

OPSET = 18
IR_VERSION = 10
"""The newest ONNX file format that runtimes of the last years read."""

BATCH = "batch"

HEAVY = 2**22
"""Elements; a parameter with more is no matrix that a module inverts."""


def check_module(module: Any) -> None:
    """Check that something is a module.

    Raises: InvalidType when it is not.
    """
    if not isinstance(module, torch.nn.Module):
        raise InvalidType(f"module: is {kind_of(module)}; expected a torch.nn.Module")


def outputs_of(module: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors that a module returns, in the order in which exporters name them."""
    with evaluating(module), torch.no_grad():
        return _tensors(module(*inputs))


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Let a module be in evaluation mode for a while, and then each part in the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def trace(module: nn.Module, inputs: Sequence[Tensor], exporter: str) -> ModelProto:
    """Return a module in evaluation mode as ONNX, its batch axis open.

    `exporter` is one of `EXPORTERS`. Exporters write equal tensors once; so a twin with random
    weights is exported, and each constant then gets its parameter's values.
    Shapes: each input `[n, ...]`, n at least 2.
    Raises: ConversionError when the exporter cannot follow the module.
    """
    return fill(*trace_apart(module, inputs, exporter))


def trace_apart(
    module: nn.Module, inputs: Sequence[Tensor], exporter: str
) -> tuple[ModelProto, Weights]:
    """Return what `trace` returns with its large weights apart: they are those of the module.

    Shapes and Raises: as `trace`.
    """
    twin = _twin(module)
    names = [f"input_{k}" if k else "input" for k in range(len(inputs))]
    returned = [f"output_{k}" if k else "output" for k in range(len(outputs_of(twin, inputs)))]
    try:
        with _quiet():
            model = EXPORTERS[exporter](twin, inputs, names, returned)
    except Exception as error:  # an exporter may raise anything
        raise ConversionError(
            f"{type(module).__name__}: torch's {exporter} exporter failed: {first_line(error)}"
        ) from error
    del twin
    model.ir_version = min(model.ir_version, IR_VERSION)
    return _with_values(model, module.state_dict(keep_vars=True))


def _with_values(model: ModelProto, values: Mapping[str, Tensor]) -> tuple[ModelProto, Weights]:
    """Return a model with the values of parameters by their names, and those that are large.

    Parameters may be inputs of the model. It is a new one: a message keeps the memory of values
    that are set anew.
    """
    found, weights = shell(model, keep=lambda _: False), dict[str, Weight]()
    del found.graph.input[:]
    found.graph.input.extend(one for one in model.graph.input if one.name not in values)
    given = (TensorProto(name=one.name) for one in model.graph.input if one.name in values)
    for tensor in (*model.graph.initializer, *given):
        place = found.graph.initializer.add()
        if tensor.name not in values:
            place.CopyFrom(tensor)
            continue
        array = values[tensor.name].detach().cpu().numpy()
        place.name, place.data_type = tensor.name, helper.np_dtype_to_tensor_dtype(array.dtype)
        place.dims.extend(array.shape)
        if is_large(place) and place.data_type in AS_THEY_LIE:
            weights[place.name] = Weight(partial(np.asarray, array))
        else:
            place.raw_data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return found, weights


def _twin(module: nn.Module) -> nn.Module:
    """A copy of a module on the CPU in evaluation mode, no two of its tensors equal.

    Of a heavy tensor all numbers are one that is held once.
    """
    generator = torch.Generator().manual_seed(0)
    heavy: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point() and tensor.numel() > HEAVY:
            one = torch.empty(1, dtype=tensor.dtype).uniform_(0.5, 1.5, generator=generator)
            heavy[id(tensor)] = alike(tensor, one.expand(tensor.shape))
    filled = {id(one) for one in heavy.values()}
    twin = copy.deepcopy(module, dict(heavy)).cpu().eval()
    with torch.no_grad():
        for tensor in (*twin.parameters(), *twin.buffers()):
            if tensor.is_floating_point() and id(tensor) not in filled:
                tensor.uniform_(0.5, 1.5, generator=generator)
    return twin


def alike(old: Tensor, new: Tensor) -> Tensor:
    """Return a tensor as a parameter where another one is a parameter."""
    if isinstance(old, torch.nn.Parameter):
        return torch.nn.Parameter(new, requires_grad=old.requires_grad)
    return new


def _classic(
    module: nn.Module, inputs: Sequence[Tensor], names: list[str], returned: list[str]
) -> ModelProto:
    with temporary() as folder:
        path = folder / "module.onnx"
        torch.onnx.export(
            module,
            tuple(inputs),
            path,
            input_names=names,
            output_names=returned,
            opset_version=OPSET,
            dynamic_axes={name: {0: BATCH} for name in (*names, *returned)},
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            export_params=False,  # the parameters are inputs, and their values not written
        )
        return onnx.load(path)


def _dynamo(
    module: nn.Module, inputs: Sequence[Tensor], names: list[str], returned: list[str]
) -> ModelProto:
    program = torch.onnx.export(
        module,
        tuple(inputs),
        input_names=names,
        output_names=returned,
        dynamic_shapes=tuple({0: torch.export.Dim(BATCH)} for _ in inputs),
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    assert program is not None
    return program.model_proto


EXPORTERS: dict[str, Callable[..., ModelProto]] = {"classic": _classic, "dynamo": _dynamo}
"""Torch's two, the quicker one first: what one cannot follow, the other often can."""


def _tensors(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    if isinstance(outputs, dict):
        outputs = tuple(outputs.values())
    if isinstance(outputs, list | tuple):
        return [tensor for part in outputs for tensor in _tensors(part)]
    return []


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what exporters print and warn about to themselves."""
    printed = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        warnings.simplefilter("ignore")
        yield
