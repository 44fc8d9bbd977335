"""What every converter shares: its options, its result, and the checks before a file is written."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from onnxprune.checks import SEED, Checked, Choice, Flag, Number, Sizes, Text, asked
from onnxprune.errors import ConversionError, MissingPackage
from onnxprune.evaluation import session
from onnxprune.files import make_folder, write_whole
from onnxprune.plugins import first_line

logger = logging.getLogger(__name__)

BATCH = "batch"
"""The name of the axis of samples."""

IR_VERSION = 10
"""The newest ONNX file format that runtimes of the last years read; more only if the opset asks."""

TOLERANCE = 1e-3
"""Largest difference from the framework, relative to its largest output: float32 summed in another
order differs by 1e-6 to 1e-5, a wrong attribute by 1e-2 and more."""

PROTOBUF_LIMIT = 2**31 - 1
"""Largest protobuf message, hence the largest ONNX model in one file."""

FloatArray = npt.NDArray[np.float32]


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
            help="A file with a state dict, or a name that torchvision knows.",
        ),
        None,
    )
    dynamic_batch: bool = asked(Flag(), True)
    exporter: Literal["dynamo", "classic"] = asked(
        Choice(of=("dynamo", "classic"), help="Exporter of torch."), "dynamo"
    )
    keep_batchnorm: bool = asked(Flag(), False)
    seed: int = asked(SEED, 0)


@dataclass(frozen=True)
class Export:
    """A model as its framework wrote it, and the network it was made from.

    Shapes:
        `run` maps `[N, *sample_shape]` to the outputs of the framework, in the model's order.
    """

    model: onnx.ModelProto
    run: Callable[[FloatArray], Sequence[npt.NDArray[Any]]]
    sample_shape: tuple[int, ...]
    batch: int | None = None
    """The number of samples that the model was fixed to; None: any."""


def finish(model: onnx.ModelProto, source: str, options: Options) -> onnx.ModelProto:
    """`model` with the promised batch axis and file format, checked by ONNX itself.

    Raises:
        ConversionError: another opset than the one asked for, or a model ONNX calls invalid.
    """
    finished = onnx.ModelProto()
    finished.CopyFrom(model)
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if options.opset not in (None, opset):
        raise ConversionError(
            f"{source}: the {options.exporter} exporter wrote opset {opset}, "
            f"expected {options.opset}; ask for a newer opset or for the other exporter"
        )
    if options.dynamic_batch:
        _name_batch(finished.graph)
    needed = onnx.helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
    finished.ir_version = max(needed, min(model.ir_version, IR_VERSION))
    try:
        onnx.checker.check_model(finished, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ConversionError(
            f"{source}: the {options.exporter} exporter wrote an invalid model: "
            f"{first_line(error)}; try the other exporter or another opset"
        ) from error
    return finished


def compare(model: onnx.ModelProto, exported: Export, source: str, options: Options) -> float:
    """The largest relative difference between network and model on one random batch.

    Raises:
        ConversionError: the model does not run, or its outputs differ by more than `TOLERANCE`.
        MissingPackage: onnxruntime is not installed.
    """
    # Three samples: neither the batch the exporters trace with nor a size that broadcasts.
    shape = (exported.batch or 3, *exported.sample_shape)
    batch = np.random.default_rng(options.seed).standard_normal(shape, dtype=np.float32)
    expected = exported.run(batch)
    try:
        found = session(model, device="cpu").run(None, {model.graph.input[0].name: batch})
    except MissingPackage:
        raise
    except Exception as error:  # onnxruntime's errors have no root of their own
        raise ConversionError(
            f"{source}: the exported model does not run on a batch of shape {shape}: "
            f"{first_line(error)}; try the other exporter, or a fixed batch"
        ) from error
    largest = 0.0
    for value, one, other in zip(model.graph.output, expected, found, strict=True):
        if one.shape != other.shape:
            raise ConversionError(
                f"{source}: output {value.name!r} of the exported model has shape {other.shape}, "
                f"expected {one.shape} as in the framework; try the other exporter"
            )
        difference = _relative_difference(one, other)
        if not difference <= TOLERANCE:  # also refuses NaN
            raise ConversionError(
                f"{source}: output {value.name!r} of the exported model differs from the "
                f"framework's by {difference:.1e} of its largest value, expected at most "
                f"{TOLERANCE:.0e}; try the other exporter or another opset"
            )
        largest = max(largest, difference)
    return largest


def write(model: onnx.ModelProto, path: Path) -> Path:
    """Write `model` to `path`, whole or not at all, and return `path`.

    Raises:
        ConversionError: the model is too large for one file.
        OutputError: the file cannot be written.
    """
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if size >= PROTOBUF_LIMIT:
        raise ConversionError(
            f"{path}: the weights take {size / 2**30:.1f} GiB, an ONNX file holds less than 2 GiB"
        )
    make_folder(path.parent)
    return write_whole(path, model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Turn what exporters print and warn about into DEBUG lines of the log."""
    printed = io.StringIO()
    caught: list[warnings.WarningMessage] = []
    try:
        with (
            warnings.catch_warnings(record=True) as caught,
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            warnings.simplefilter("always")
            yield
    finally:
        for warning in caught:
            logger.debug("%s: %s", warning.category.__name__, warning.message)
        for text in printed.getvalue().splitlines():
            logger.debug("%s", text)


def _name_batch(graph: onnx.GraphProto) -> None:
    """Rename the first axis of the input, wherever it occurs, to `BATCH`."""
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    old = batch.dim_param
    batch.dim_param = BATCH
    for value in (*graph.input, *graph.value_info, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if old and dim.dim_param == old:
                dim.dim_param = BATCH


def _relative_difference(expected: npt.NDArray[Any], found: npt.NDArray[Any]) -> float:
    if expected.size == 0:
        return 0.0
    scale = float(np.abs(expected).max()) or 1.0
    return float(np.abs(expected.astype(np.float64) - found).max()) / scale
