"""PyTorch to ONNX: `package.module:function`, `path/to/file.py:function` or a `.pt2` file.

What the name stands for is a network (`torch.nn.Module`) or anything that returns one when called
without arguments: a function or a class.
"""

import contextlib
import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import onnx

from onnxprune.errors import ConversionError, MissingPackage, OnnxPruneError
from onnxprune.plugins import find_function, first_line

from ._export import BATCH, Export, FloatArray, Options

if TYPE_CHECKING:
    import torch

EXPECTED = "package.module:function, path/to/file.py:function or a .pt2 file"

TRACED_BATCH = 2
"""Samples in the batch that the exporters trace: torch treats a size of 1 as fixed."""


def export(source: str, options: Options) -> Export:
    """Export the network that `source` names.

    Raises:
        ConversionError: it is not a network, or one that cannot be exported.
        MissingPackage: onnxscript is not installed.
        UnknownName: there is nothing of that name.
    """
    import torch

    if source.endswith(".pt2"):
        return _export_program(source, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = _call(find_function(source, EXPECTED), source)
    if not isinstance(network, torch.nn.Module):
        raise ConversionError(
            f"{source}: found {type(network).__name__}, expected a torch.nn.Module "
            "or a function without arguments that returns one"
        )
    if options.weights is not None:
        load_weights(network, options.weights)
    return export_network(network, source, options)


def export_network(network: "torch.nn.Module", source: str, options: Options) -> Export:
    """Export a network in evaluation mode; `options.input_shape` is needed.

    Raises:
        ConversionError: the network does not run on that shape, or cannot be exported.
        MissingPackage: onnxscript is not installed.
    """
    import torch

    if options.input_shape is None:
        raise ConversionError(
            f"{source}: the shape of its input is not known; "
            "give the shape of one sample, such as 3,224,224"
        )
    network = network.eval()
    batch = TRACED_BATCH if options.dynamic_batch else 1
    sample = torch.zeros(batch, *options.input_shape)
    try:
        with torch.no_grad():
            outputs = tensors(network(sample))
    except Exception as error:  # a network may raise anything
        raise ConversionError(
            f"{source}: the network does not run on a batch of shape {tuple(sample.shape)}: "
            f"{error}; give the shape of one sample, without the batch axis"
        ) from error

    write = _write_dynamo if options.exporter == "dynamo" else _write_classic
    with _reported(source, options):
        model = write(network, sample, output_names(len(outputs)), options)
    fixed = None if options.dynamic_batch else batch
    return Export(model, _runner(network), options.input_shape, fixed)


def load_weights(network: "torch.nn.Module", path: str) -> None:
    """Fill `network` from a state dict in a file; nothing in the file is executed.

    Raises:
        ConversionError: no such file, not a state dict, or of another network.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ConversionError(f"{path}: no such file; expected a saved state dict") from error
    except Exception as error:  # unpickling raises anything
        raise ConversionError(
            f"{path}: not a state dict that loads with weights_only=True: {error}; "
            "save one with torch.save(network.state_dict(), path)"
        ) from error
    if not isinstance(state, Mapping):
        raise ConversionError(f"{path}: found {type(state).__name__}, expected a state dict")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ConversionError(f"{path}: weights of another network: {error}") from error


def tensors(outputs: object) -> list["torch.Tensor"]:
    """The tensors in what a network returns, in the order in which the exporters name them."""
    import torch

    if isinstance(outputs, torch.Tensor):
        return [outputs]
    if isinstance(outputs, Mapping):
        outputs = tuple(outputs.values())
    if isinstance(outputs, Sequence) and not isinstance(outputs, str):
        return [tensor for part in outputs for tensor in tensors(part)]
    return []


def output_names(count: int) -> list[str]:
    """`output`, `output_1`, `output_2`, ..."""
    return ["output", *(f"output_{i}" for i in range(1, count))]


def _call(found: Callable[..., object], source: str) -> object:
    """The network itself, or what the function or class returns."""
    import torch

    if isinstance(found, torch.nn.Module):
        return found
    try:
        return found()
    except Exception as error:  # the user's code
        raise ConversionError(
            f"{source}: calling it without arguments failed: {first_line(error)}"
        ) from error


def _export_program(source: str, options: Options) -> Export:
    """Export a `.pt2` file, whose shapes were fixed when it was written."""
    import torch

    if not Path(source).is_file():
        raise ConversionError(f"{source}: no such file")
    if options.exporter != "dynamo":
        raise ConversionError(f"{source}: a .pt2 file needs the dynamo exporter")
    if options.weights is not None:
        raise ConversionError(f"{source}: a .pt2 file has its own weights; give none")
    try:
        program = torch.export.load(source)
    except Exception as error:  # unpickling raises anything
        raise ConversionError(
            f"{source}: not a program that torch.export.load reads: {error}"
        ) from error
    inputs = program.graph_signature.user_inputs
    if len(inputs) != 1:
        raise ConversionError(f"{source}: {len(inputs)} inputs {inputs}, expected one")
    node = next(node for node in program.graph.nodes if node.name == inputs[0])
    shape = tuple(node.meta["val"].shape)
    fixed = int(shape[0]) if isinstance(shape[0], int) else None
    if options.dynamic_batch and fixed is not None:
        raise ConversionError(
            f"{source}: its batch is fixed to {fixed}; convert with a fixed batch, or save it "
            'again with torch.export.export(..., dynamic_shapes=({0: Dim("batch")},))'
        )
    sample_shape = options.input_shape or tuple(int(size) for size in shape[1:])
    names = output_names(len(program.graph_signature.user_outputs))
    with _reported(source, options):
        model = _to_onnx(program, (), names, options, dynamic_shapes=None)
    return Export(model, _runner(program.module()), sample_shape, fixed)


def _write_dynamo(
    network: "torch.nn.Module", sample: "torch.Tensor", names: list[str], options: Options
) -> onnx.ModelProto:
    import torch

    shapes = ({0: torch.export.Dim(BATCH)},) if options.dynamic_batch else None
    return _to_onnx(network, (sample,), names, options, dynamic_shapes=shapes)


def _to_onnx(
    network: "torch.nn.Module | torch.export.ExportedProgram",
    inputs: "tuple[torch.Tensor, ...]",
    names: list[str],
    options: Options,
    *,
    dynamic_shapes: "tuple[dict[int, torch.export.Dim], ...] | None",
) -> onnx.ModelProto:
    import torch

    if importlib.util.find_spec("onnxscript") is None:
        raise MissingPackage(
            "the dynamo exporter needs onnxscript: pip install 'onnxprune[convert]', "
            "or use the classic exporter"
        )
    program = torch.onnx.export(
        network,
        inputs,
        input_names=["input"],
        output_names=names,
        opset_version=options.opset,
        dynamic_shapes=dynamic_shapes,
        dynamo=True,
        optimize=not options.keep_batchnorm,
        verbose=False,
    )
    if program is None:
        raise ConversionError("torch.onnx.export returned no program")
    return program.model_proto


def _write_classic(
    network: "torch.nn.Module", sample: "torch.Tensor", names: list[str], options: Options
) -> onnx.ModelProto:
    import torch

    axes = {name: {0: BATCH} for name in ("input", *names)} if options.dynamic_batch else None
    mode = torch.onnx.TrainingMode
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            network,
            (sample,),
            path,
            input_names=["input"],
            output_names=names,
            opset_version=options.opset,
            dynamic_axes=axes,
            dynamo=False,
            training=mode.PRESERVE if options.keep_batchnorm else mode.EVAL,
            do_constant_folding=not options.keep_batchnorm,
        )
        return onnx.load(path)


@contextlib.contextmanager
def _reported(source: str, options: Options) -> Iterator[None]:
    """Tell in one line why an exporter failed, and what else to try."""
    try:
        yield
    except OnnxPruneError:
        raise
    except Exception as error:  # an exporter may raise anything
        other = "classic" if options.exporter == "dynamo" else "dynamo"
        raise ConversionError(
            f"{source}: the {options.exporter} exporter failed: {first_line(error)}; "
            f"try the {other} exporter, another opset, or a fixed batch"
        ) from error


def _runner(network: Callable[..., object]) -> Callable[[FloatArray], list[npt.NDArray[Any]]]:
    """The network as a function of arrays."""

    def run(batch: FloatArray) -> list[npt.NDArray[Any]]:
        import torch

        with torch.no_grad():
            return [tensor.numpy() for tensor in tensors(network(torch.from_numpy(batch)))]

    return run
