"""What every converter shares: its options, its result, and the checks before a file is written."""

import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from onnxprune.checks import SEED, Checked, Choice, Flag, Number, Sizes, Text, asked
from onnxprune.errors import NOTICE, ConversionError, MissingPackage
from onnxprune.evaluation import session
from onnxprune.files import make_folder
from onnxprune.graph import INPUT_SHAPES, copied, fits_message, save_model, typed_shell
from onnxprune.plugins import WHATEVER, first_line

from ._inputs import BATCH, made_up, set_batch
from ._leftovers import in_onnx
from ._names import graphs, name_outputs

logger = logging.getLogger(__name__)

_hearing: ContextVar[Callable[[str], object]] = ContextVar("busy", default=lambda what: None)

IR_VERSION = 10
"""The newest ONNX file format that runtimes of the last years read; more only if the opset asks."""

TOLERANCE = 1e-3
"""Largest difference from the framework, relative to its largest output: float32 summed in another
order differs by 1e-6 to 1e-5, a wrong attribute by 1e-2 and more."""

TRIED = 64
"""A size where a model leaves one of the image open."""

OF_TORCH, ANY = "try the other exporter or another opset", "try another opset"
"""What else may serve: torch has two exporters."""

PREPROCESS_KEY, NAMES_KEY, SOURCE_KEY = "onnxprune.preprocess", "names", "onnxprune.source"
"""Keys of the metadata; those that are common have the name by which others know them."""


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """How to convert; see `convert` for the meaning of each field.

    Raises:
        InvalidType, InvalidValue, UnknownName: a value that its rule refuses.
    """

    input_shape: tuple[int, ...] | None = asked(
        Sizes(optional=True, metavar="C,H,W", help="Shape of one sample, without the batch axis."),
        None,
    )
    input_shapes: tuple[tuple[str, tuple[int, ...]], ...] = asked(INPUT_SHAPES, ())
    opset: int | None = asked(
        Number(
            whole=True,
            least=7,
            optional=True,
            metavar="N",
            help="ONNX operator set; by default the exporter's own.",
        ),
        None,
    )
    weights: str | None = asked(
        Text(
            of="a file or a name",
            path=True,
            optional=True,
            metavar="FILE|NAME",
            help="A checkpoint, or the name of published weights, such as DEFAULT.",
        ),
        None,
    )
    dynamic_batch: bool = asked(Flag(), True)
    exporter: Literal["dynamo", "classic"] = asked(
        Choice(of=("dynamo", "classic"), help="Exporter of torch."), "dynamo"
    )
    keep_batchnorm: bool = asked(Flag(), False)
    trust: bool = asked(Flag(), False)
    seed: int = asked(SEED, 0)


@dataclass(frozen=True)
class Export:
    """A model as its framework wrote it, and the network it was made from.

    Shapes:
        `run` maps `[N, *sample_shape]`, and what other inputs the model has, to the outputs of the
        framework; both in the order of the model.
    """

    model: onnx.ModelProto
    run: Callable[..., Sequence[npt.NDArray[Any]]]
    sample_shape: tuple[int, ...]
    batch: int | None = None
    """The number of samples that the model was fixed to; None: any."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the framework knows of the model, for its metadata; see `facts`."""
    by: str = "the exporter"
    """What wrote the model, as errors call it."""
    otherwise: str = ANY
    """What to try where the model is wrong."""
    names: Sequence[str] = ()
    """What the framework calls the outputs, in the order of the model; empty where it does not."""
    tried: Sequence[tuple[int, ...]] = ()
    """Shapes of the inputs, in the order of the model, for axes that it leaves open."""


def facts(*, preprocess: str = "", names: Sequence[str] | Mapping[int, str] = ()) -> dict[str, str]:
    """Return what a framework knows of a model by the keys under which the metadata holds it.

    `preprocess` is a preset, or what `name_preset` makes of mean and deviation. `names` are those
    of the classes, by number.
    """
    numbered = dict(names if isinstance(names, Mapping) else enumerate(names))
    said = {PREPROCESS_KEY: preprocess, NAMES_KEY: str(numbered) if numbered else ""}
    return {key: value for key, value in said.items() if value}


def finish(exported: Export, source: str, options: Options) -> onnx.ModelProto:
    """The model with the promised batch axis, file format and metadata, checked by ONNX itself.

    Raises:
        ConversionError: another opset than the one asked for, or a model ONNX calls invalid.
    """
    model = exported.model
    finished = copied(model)
    in_onnx(finished)
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if options.opset not in (None, opset):
        raise ConversionError(
            f"{source}: {exported.by} wrote opset {opset}, expected {options.opset}; "
            f"ask for a newer opset or for the other exporter"
        )
    if exported.batch is None:
        set_batch(finished.graph, BATCH if options.dynamic_batch else 1)
    else:
        set_batch(finished.graph, exported.batch)
        if options.dynamic_batch:
            logger.log(NOTICE, "%s: its batch is fixed to %d, and stays so", source, exported.batch)
    name_outputs(finished.graph, exported.names)
    needed = onnx.helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
    finished.ir_version = max(needed, min(model.ir_version, IR_VERSION))
    _add_facts(finished, exported, source)
    if left := unknown_operators(finished):
        raise ConversionError(
            f"{source}: {exported.by} left {', '.join(left)} in the model, which ONNX does not "
            "have; build the network without"
        )
    try:
        # The checker takes a message: of a larger model, large weights are inputs for it.
        checked = finished if fits_message(finished) else typed_shell(finished)
        onnx.checker.check_model(checked, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ConversionError(
            f"{source}: {exported.by} wrote an invalid model: {first_line(error)}; "
            f"{exported.otherwise}"
        ) from error
    return finished


def _add_facts(model: onnx.ModelProto, exported: Export, source: str) -> None:
    known = {entry.key: entry.value for entry in model.metadata_props}
    known |= {**exported.facts, SOURCE_KEY: Path(source).name or source}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, known)


def compare(model: onnx.ModelProto, exported: Export, source: str, options: Options) -> float:
    """The largest relative difference between network and model on one random batch.

    Raises:
        ConversionError: the model does not run, or its outputs differ by more than `TOLERANCE`.
        MissingPackage: onnxruntime is not installed.
    """
    # Three samples: neither the batch the exporters trace with nor a size that broadcasts.
    batch = exported.batch or (3 if options.dynamic_batch else 1)
    feeds = made_up(
        model.graph,
        exported.sample_shape,
        exported.tried,
        batch,
        pixels=exported.facts.get(PREPROCESS_KEY) in ("raw", "bgr", "caffe"),
        seed=options.seed,
    )
    shapes = " and ".join(str(value.shape) for value in feeds.values())
    try:
        expected = exported.run(*feeds.values())
    except Exception as error:  # a framework raises anything
        raise ConversionError(
            f"{source}: the network itself does not run on a batch of shape {shapes}: "
            f"{first_line(error)}; give the shape of one sample, or a fixed batch"
        ) from error
    try:
        found = session(model, device="cpu").run(None, feeds)
    except MissingPackage:
        raise
    except Exception as error:  # onnxruntime's errors have no root of their own
        raise ConversionError(
            f"{source}: the exported model does not run on a batch of shape {shapes}: "
            f"{first_line(error)}; {exported.otherwise}, or a fixed batch"
        ) from error
    if len(expected) != len(found):
        raise ConversionError(
            f"{source}: the exported model has {len(found)} outputs, expected {len(expected)} as "
            f"in the framework; {exported.otherwise}"
        )
    largest = 0.0
    for value, one, other in zip(model.graph.output, expected, found, strict=True):
        if one.shape != other.shape:
            raise ConversionError(
                f"{source}: output {value.name!r} of the exported model has shape {other.shape}, "
                f"expected {one.shape} as in the framework; {exported.otherwise}"
            )
        difference = _relative_difference(one, other)
        if not difference <= TOLERANCE:  # also refuses NaN
            raise ConversionError(
                f"{source}: output {value.name!r} of the exported model differs from the "
                f"framework's by {difference:.1e} of its largest value, expected at most "
                f"{TOLERANCE:.0e}; {exported.otherwise}"
            )
        largest = max(largest, difference)
    return largest


def unknown_operators(model: onnx.ModelProto) -> list[str]:
    """The operators that bear no domain of their own, and are none of ONNX."""
    own = {function.name for function in model.functions}
    used = {
        node.op_type
        for part in graphs(model.graph)
        for node in part.node
        if node.domain in ("", "ai.onnx")
    }
    return sorted(name for name in used - own if not onnx.defs.has(name))


def without_leftovers(model: onnx.ModelProto, declared: Collection[str]) -> onnx.ModelProto:
    """Take away the inputs that the network does not have and that nothing reads.

    tf2onnx leaves such ones where it computes with constants, as in Keras' EfficientNetV2.
    """
    read = {name for part in graphs(model.graph) for node in part.node for name in node.input}
    read |= {value.name for value in model.graph.output}
    for value in list(model.graph.input):
        if value.name not in declared and value.name not in read:
            model.graph.input.remove(value)
    return model


def filled(sizes: Iterable[int | None]) -> list[int]:
    """Sizes to try a network on, where it leaves some open."""
    return [int(size) if size and size > 0 else TRIED for size in sizes]


def call(found: Callable[..., object], source: str, kind: type) -> object:
    """What a user's name stands for: an object of a kind, or what the function or class returns.

    Raises:
        ConversionError: it cannot be called without arguments.
    """
    if isinstance(found, kind):
        return found
    try:
        return found()
    except WHATEVER as error:
        raise ConversionError(
            f"{source}: calling it without arguments failed: {first_line(error)}"
        ) from error


def write(model: onnx.ModelProto, path: Path) -> Path:
    """Write `model` to `path`, whole or not at all, and return `path`.

    The weights of a model of over 2 GB stand in a second file.
    Raises:
        OutputError: the file cannot be written.
    """
    make_folder(path.parent)
    return save_model(model, path)


@contextlib.contextmanager
def busy_told(hear: Callable[[str], object]) -> Iterator[None]:
    """Let `hear` hear what a converter is busy with until the block ends."""
    token = _hearing.set(hear)
    try:
        yield
    finally:
        _hearing.reset(token)


def busy(what: str) -> None:
    """Say what comes next; no exporter says how much of it is done."""
    _hearing.get()(what)


def _relative_difference(expected: npt.NDArray[Any], found: npt.NDArray[Any]) -> float:
    if expected.size == 0:
        return 0.0
    scale = float(np.abs(expected).max()) or 1.0
    return float(np.abs(expected.astype(np.float64) - found).max()) / scale
