"""How torch writes a network as ONNX: by its exporters, and what the network computes itself."""

import contextlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import onnx

from onnxprune.errors import ConversionError, MissingPackage, OnnxPruneError
from onnxprune.files import temporary
from onnxprune.plugins import WHATEVER, first_line

from ._calls import Call, called
from ._export import OF_TORCH, Export, Options, busy
from ._inputs import BATCH
from ._names import Place, numbered, output_names

if TYPE_CHECKING:
    import torch

TRACED_BATCH = 2
"""Samples in the batch that the exporters trace: torch treats a size of 1 as fixed."""


def import_torch() -> ModuleType:
    """Return torch.

    Raises: MissingPackage: it is not installed.
    """
    busy("importing torch")
    try:
        import torch
    except ImportError as error:
        raise MissingPackage("torch is not installed: pip install 'onnxprune[torch]'") from error
    return torch


def export_network(network: "torch.nn.Module", source: str, options: Options) -> Export:
    """Export a network in evaluation mode; the shapes of its inputs are needed.

    Raises:
        ConversionError: the network does not run on that shape, or cannot be exported.
        MissingPackage: onnxscript is not installed.
    """
    import torch

    network = network.eval()
    asked = called(network, source, options)
    batch = TRACED_BATCH if options.dynamic_batch else 1
    try:
        with torch.no_grad():
            outputs = placed(asked.on(network, asked.zeros(batch)))
    except WHATEVER as error:
        shapes = " and ".join(str((batch, *shape)) for shape in asked.shapes.values())
        raise ConversionError(
            f"{source}: the network does not run on a batch of shape {shapes}: "
            f"{first_line(error)}; give the shape of one sample, without the batch axis, or, if it "
            "is that, mend the network"
        ) from error

    write = _write_dynamo if options.exporter == "dynamo" else _write_classic
    names = output_names([place for place, _ in outputs])
    busy(f"exporting it, by torch's {options.exporter} exporter")
    with reported(source, options):
        model = write(network, asked, asked.zeros(batch), numbered(len(outputs)), options)
    fixed = None if options.dynamic_batch else batch
    by = f"the {options.exporter} exporter"
    run = runner(lambda *inputs: asked.on(network, inputs))
    size = next(iter(asked.shapes.values()))
    return Export(model, run, size, fixed, by=by, otherwise=OF_TORCH, names=names)


def tensors(outputs: object) -> list["torch.Tensor"]:
    """The tensors in what a network returns, in the order in which the exporters name them."""
    return [tensor for _, tensor in placed(outputs)]


def placed(outputs: object, place: Place = ()) -> list[tuple[Place, "torch.Tensor"]]:
    """The tensors in what a network returns, and where each lies: keys, fields and numbers."""
    import torch

    if isinstance(outputs, torch.Tensor):
        return [(place, outputs)]
    return [pair for key, part in parts(outputs) for pair in placed(part, (*place, key))]


def parts(outputs: object) -> Iterable[tuple[str | int, Any]]:
    """What a dict, a list or a tuple holds, by key or field, or else by number."""
    if isinstance(outputs, Mapping):
        return [(str(key), part) for key, part in outputs.items()]
    if isinstance(outputs, tuple) and hasattr(outputs, "_asdict"):
        return list(outputs._asdict().items())
    if isinstance(outputs, Sequence) and not isinstance(outputs, str):
        return list(enumerate(outputs))
    return []


def _write_dynamo(
    network: "torch.nn.Module",
    asked: Call,
    samples: "list[torch.Tensor]",
    names: list[str],
    options: Options,
) -> onnx.ModelProto:
    import torch

    places, named = asked.split(samples)
    shapes = asked.spread({0: torch.export.Dim(BATCH)}) if options.dynamic_batch else None
    return to_onnx(
        network,
        places,
        names,
        options,
        dynamic_shapes=shapes,
        input_names=[*asked.shapes],
        named=named,
    )


def to_onnx(
    network: "torch.nn.Module | torch.export.ExportedProgram",
    inputs: "tuple[torch.Tensor, ...]",
    names: list[str],
    options: Options,
    *,
    dynamic_shapes: Any,
    input_names: Sequence[str] = ("input",),
    named: "Mapping[str, torch.Tensor] | None" = None,
) -> onnx.ModelProto:
    """Write a network, or a program that torch.export made of one, by the dynamo exporter.

    `named` are inputs that go in by name, behind the others.
    """
    import torch

    if importlib.util.find_spec("onnxscript") is None:
        raise MissingPackage(
            "the dynamo exporter needs onnxscript: pip install 'onnxprune[torch]', "
            "or use the classic exporter"
        )
    program = torch.onnx.export(
        network,
        inputs,
        kwargs=dict(named or {}),
        input_names=list(input_names),
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
    network: "torch.nn.Module",
    asked: Call,
    samples: "list[torch.Tensor]",
    names: list[str],
    options: Options,
) -> onnx.ModelProto:
    import torch

    every = (*asked.shapes, *names)
    axes = {name: {0: BATCH} for name in every} if options.dynamic_batch else None
    mode = torch.onnx.TrainingMode
    places, named = asked.split(samples)
    with temporary() as folder:
        path = folder / "model.onnx"
        torch.onnx.export(
            network,
            places,
            path,
            kwargs=named,
            input_names=[*asked.shapes],
            output_names=names,
            opset_version=options.opset,
            dynamic_axes=axes,
            dynamo=False,
            training=mode.PRESERVE if options.keep_batchnorm else mode.EVAL,
            do_constant_folding=not options.keep_batchnorm,
        )
        return onnx.load(path)


@contextlib.contextmanager
def reported(source: str, options: Options) -> Iterator[None]:
    """Tell in one line why an exporter failed, and what else to try."""
    try:
        yield
    except OnnxPruneError:
        raise
    except Exception as error:  # an exporter may raise anything
        other = "classic" if options.exporter == "dynamo" else "dynamo"
        raise ConversionError(
            f"{source}: the {options.exporter} exporter failed: {_cause(error)}; "
            f"try the {other} exporter, another opset, or a fixed batch"
        ) from error


def _cause(error: BaseException) -> str:
    """Name what an exporter's error was raised from: its own says in which pass it was, not why."""
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    return first_line(root) + ("" if root is error else f" ({type(error).__name__})")


def runner(network: Callable[..., object]) -> Callable[..., list[npt.NDArray[Any]]]:
    """The network as a function of arrays."""

    def run(*inputs: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        import torch

        with torch.no_grad():
            return [tensor.numpy() for tensor in tensors(network(*map(torch.from_numpy, inputs)))]

    return run
