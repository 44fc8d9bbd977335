"""PyTorch to ONNX: a function that builds a network, or a file that holds one.

A source is `package.module:function` or `path/to/file.py:function`, which stands for a network
(`torch.nn.Module`) or for anything that returns one when called without arguments; a `.pt2` file of
torch.export, a TorchScript file, or a pickled network, which only a user who trusts it has loaded.
"""

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.errors import ConversionError
from onnxprune.plugins import find_function, first_line

from ._checkpoints import SUFFIXES, TRUST, is_script, load_checkpoint, load_weights
from ._export import TRIED, Export, Options, busy, call
from ._inputs import samples_of
from ._names import numbered, output_names
from ._torch import export_network, import_torch, placed, reported, runner, to_onnx

if TYPE_CHECKING:
    import torch

EXPECTED = "package.module:function, path/to/file.py:function or a .pt2 file"


def export(source: str, options: Options) -> Export:
    """Export the network that `source` names.

    Raises:
        ConversionError: it is not a network, or one that cannot be exported.
        MissingPackage: onnxscript is not installed.
        UnknownName: there is nothing of that name.
    """
    torch = import_torch()

    if source.endswith(".pt2"):
        return _export_program(source, options)
    if source.endswith(SUFFIXES) and ":" not in source:
        return _export_file(source, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = call(find_function(source, EXPECTED), source, torch.nn.Module)
    if not isinstance(network, torch.nn.Module):
        raise ConversionError(
            f"{source}: found {type(network).__name__}, expected a torch.nn.Module "
            "or a function without arguments that returns one"
        )
    if options.weights is not None:
        load_weights(network, options.weights, trust=options.trust)
    return export_network(network, source, options)


def _export_file(source: str, options: Options) -> Export:
    """Export the network that a TorchScript file or a pickle holds."""
    import torch

    if not Path(source).is_file():
        raise ConversionError(f"{source}: no such file; give the path of a saved model")
    if options.weights is not None:
        raise ConversionError(f"{source}: has its own weights; give no --weights")
    if is_script(source):
        script = torch.jit.load(source, map_location="cpu")  # type: ignore[no-untyped-call]
        return export_network(script, source, replace(options, exporter="classic"))
    found: Any = load_checkpoint(source, trust=options.trust)
    held = found.get("model", found) if isinstance(found, dict) else found
    if isinstance(held, torch.nn.Module):
        return export_network(held.float(), source, options)
    raise ConversionError(
        f"{source}: holds weights and no network; name the function that builds it: "
        f"onnxprune convert my/model.py:build --weights {source}"
    )


def _export_program(source: str, options: Options) -> Export:
    """Export a `.pt2` file, whose shapes were fixed when it was written."""
    if not Path(source).is_file():
        raise ConversionError(f"{source}: no such file; give the path of a saved model")
    if options.exporter != "dynamo":
        raise ConversionError(f"{source}: a .pt2 file needs the dynamo exporter")
    if options.weights is not None:
        raise ConversionError(f"{source}: a .pt2 file has its own weights; give none")
    program = _load_program(source, trust=options.trust)
    inputs = program.graph_signature.user_inputs
    found = {
        node.name: tuple(node.meta["val"].shape)
        for node in program.graph.nodes
        if node.name in inputs
    }
    if not found or not next(iter(found.values())):
        raise ConversionError(f"{source}: {len(found)} inputs {inputs}, expected an image")
    given = samples_of(options.input_shape, options.input_shapes, [*found], source)
    tried = [_tried(name, shape, given.get(name), source) for name, shape in found.items()]
    open_ = any(shape and not isinstance(shape[0], int) for shape in found.values())
    count = len(program.graph_signature.user_outputs)
    input_names = ("input",) if len(found) == 1 else tuple(found)
    busy("exporting it, by torch's dynamo exporter")
    with reported(source, options):
        model = to_onnx(
            program, (), numbered(count), options, dynamic_shapes=None, input_names=input_names
        )
    return Export(
        model,
        runner(_caller(program, len(found))),
        tried[0][1:],
        None if open_ else tried[0][0],
        by="the dynamo exporter",
        names=_names(program, count),
        tried=tried,
    )


def _tried(
    name: str, shape: Sequence[Any], given: tuple[int, ...] | None, source: str
) -> tuple[int, ...]:
    """The shape of an input, with the given sizes where a program leaves axes open."""
    # int() of an open size would fix it in the program.
    usual = tuple(size if isinstance(size, int) else size.node.hint or TRIED for size in shape)
    if given is None:
        return usual
    fixed = [size if isinstance(size, int) else None for size in shape[1:]]
    if len(given) != len(fixed) or any(
        size not in (None, one) for size, one in zip(fixed, given, strict=True)
    ):
        said = ",".join(str(size or "?") for size in fixed)
        raise ConversionError(
            f"{source}: a sample of {name} is given the shape {','.join(map(str, given))}; "
            f"expected {said}, as the program says"
        )
    return (*usual[:1], *given)


def _caller(program: "torch.export.ExportedProgram", count: int) -> Callable[..., object]:
    """A program as a function of its tensors, which it may take by name or in dicts and lists."""
    module, shape = program.module(), program.call_spec.in_spec
    if shape is None or shape.num_leaves != count:
        return module

    def run(*inputs: object) -> object:
        places, named = shape.unflatten(inputs)
        return module(*places, **named)

    return run


def _names(program: "torch.export.ExportedProgram", count: int) -> list[str]:
    """What the outputs of a program are called: the keys of what its module returned."""
    import torch

    stands = [torch.empty(0) for _ in range(count)]
    shape = program.call_spec.out_spec
    if shape is None or shape.num_leaves != count:
        return []
    return output_names([place for place, _ in placed(shape.unflatten(stands))])


def _load_program(source: str, *, trust: bool) -> "torch.export.ExportedProgram":
    """Read a `.pt2` file; pickles in it that are more than tensors only if it is trusted."""
    import torch

    pickled: list[str] = []
    if not trust and zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            pickled = [name for name in archive.namelist() if "_obj" in Path(name).name]
    if pickled:
        raise ConversionError(f"{source}: holds pickled objects ({pickled[0]}); {TRUST}")
    try:
        with contextlib.nullcontext() if trust else _weights_only():
            return torch.export.load(source)
    except Exception as error:  # unpickling raises anything
        hint = "" if trust or "eights" not in str(error) else f"; {TRUST}"
        raise ConversionError(
            f"{source}: not a program that torch.export.load reads: {first_line(error)}{hint}"
        ) from error


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    """Let torch load tensors only, also where it asks itself for more.

    Source: torch.load, TORCH_FORCE_WEIGHTS_ONLY_LOAD.
    """
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
