"""The graph of a module, whose constants carry the names of its parameters.

Nothing is folded: batch normalisation stands behind its convolution, as it does in the module.
"""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnx
from onnx import ModelProto, helper

from onnxprune.checks import kind_of
from onnxprune.errors import ConversionError, InvalidType
from onnxprune.files import temporary
from onnxprune.graph import shell
from onnxprune.ops._torch import torch
from onnxprune.plugins import first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

OPSET = 18
IR_VERSION = 10
"""The newest ONNX file format that runtimes of the last years read."""

BATCH = "batch"


def check_module(module: Any) -> None:
    """Check that something is a module.

    Raises: InvalidType when it is not.
    """
    if not isinstance(module, torch.nn.Module):
        raise InvalidType(f"module: is {kind_of(module)}; expected a torch.nn.Module")


def outputs_of(module: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors that a module returns, in the order in which exporters name them."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            return _tensors(module(*inputs))
    finally:
        module.train(was_training)


def trace(module: nn.Module, inputs: Sequence[Tensor], exporter: str) -> ModelProto:
    """Return a module in evaluation mode as ONNX, its batch axis open.

    `exporter` is one of `EXPORTERS`. Exporters write equal tensors once; so a twin with random
    weights is exported, and each constant then gets its parameter's values.
    Shapes: each input `[n, ...]`, n at least 2.
    Raises: ConversionError when the exporter cannot follow the module.
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


def _with_values(model: ModelProto, values: Mapping[str, Tensor]) -> ModelProto:
    """Return a model with the values of parameters by their names.

    It is a new one: a message keeps the memory of values that are set anew.
    """
    found = shell(model, keep=lambda _: False)
    for tensor in model.graph.initializer:
        place = found.graph.initializer.add()
        if tensor.name not in values:
            place.CopyFrom(tensor)
            continue
        array = values[tensor.name].detach().cpu().numpy()
        place.name, place.data_type = tensor.name, helper.np_dtype_to_tensor_dtype(array.dtype)
        place.dims.extend(array.shape)
        place.raw_data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return found


def _twin(module: nn.Module) -> nn.Module:
    """A copy of a module on the CPU in evaluation mode, no two of its tensors equal."""
    twin = copy.deepcopy(module).cpu().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*twin.parameters(), *twin.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5, generator=generator)
    return twin


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
