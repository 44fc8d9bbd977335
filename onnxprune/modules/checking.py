"""Whether a cut module computes what the pruned model does, and where it first does not."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, ValueInfoProto

from onnxprune.errors import UnmatchedModule
from onnxprune.evaluation import session
from onnxprune.graph import copied
from onnxprune.modules.layers import Layer
from onnxprune.modules.tracing import outputs_of
from onnxprune.ops._torch import torch
from onnxprune.plugins import WHATEVER, first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

Array = npt.NDArray[Any]

TOLERANCE = 1e-5
"""Largest difference of outputs, relative to the largest value of each."""

MOST, NOISES = 1e-3, 4
"""A module whose own rounding is larger than `TOLERANCE` may differ by so many times that, and by
no more than `MOST`."""

FAINT = 1e-4
"""Values that follow the input by less than this share of the largest hardly do."""

FIRST = 1e-3
"""From this difference on a layer inside is said to be the first that differs."""


def check(
    module: nn.Module,
    model: ModelProto,
    feeds: Mapping[str, Array],
    pairs: Sequence[tuple[Layer, Layer]],
) -> float:
    """Return the largest relative difference between the outputs of a module and of a model.

    Shapes: each feed `[n, ...]`.
    Raises: UnmatchedModule, naming the layer, where the module does not run or computes something
    else.
    """
    place = next(module.parameters()).device
    inputs = [torch.from_numpy(array).to(place) for array in feeds.values()]
    seen: list[str] = []
    found: dict[str, list[Array]] = {}
    with _watched(module, seen, found):
        try:
            outputs = [tensor.cpu().numpy() for tensor in outputs_of(module, inputs)]
        except WHATEVER as error:
            where = f"behind '{seen[-1]}'" if seen else "before its first layer"
            raise UnmatchedModule(
                f"module: its code does not run without the filters of the plan: {where}"
                f"{_line(error)}: "
                f"{first_line(error)}; read numbers of channels off tensors (x.shape[1]), or "
                f"exclude that layer from pruning"
            ) from error
    expected = session(model, device="cpu").run(None, dict(feeds))
    if len(outputs) != len(expected):
        raise UnmatchedModule(
            f"module: returns {len(outputs)} tensors, the model {len(expected)}; give the module "
            f"that the model was exported from"
        )
    differences = [difference(one, two) for one, two in zip(outputs, expected, strict=True)]
    largest = max(differences)
    if TOLERANCE < largest <= MOST and largest <= NOISES * rounding(module, inputs, outputs):
        return largest
    if not largest <= TOLERANCE:  # NaN is refused, too
        raise UnmatchedModule(
            f"module: its outputs differ from the pruned model's by {largest:.1e} of the largest, "
            f"expected {TOLERANCE:.0e}{_first(model, feeds, pairs, found)}; its code may state "
            f"numbers of channels, or its weights are not those that were exported"
        )
    return largest


def _line(error: BaseException) -> str:
    """The line of the module's own code that an error came from."""
    packages = Path(torch.__file__).parent, Path(__file__).parents[1]
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)[1:]
        if not any(map(Path(frame.filename).is_relative_to, packages))
    ]
    return f", {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""


def rounding(module: nn.Module, inputs: Sequence[Tensor], outputs: Sequence[Array]) -> float:
    """Return how far a module's outputs are from those that it computes in twice the precision.

    Shapes: each input and output `[n, ...]`.
    """
    exact = copy.deepcopy(module).double()
    found = outputs_of(exact, [x.double() if x.is_floating_point() else x for x in inputs])
    pairs = zip(outputs, found, strict=True)
    return max(difference(one, two.cpu().numpy()) for one, two in pairs)


def difference(one: Array, other: Array) -> float:
    """Return the largest difference of two arrays, relative to the largest value of the second.

    Where values hardly follow the input, it is relative to how they do: a module that ignores its
    input would else agree with a model that nearly does.
    Shapes: both `[n, ...]`.
    """
    if one.shape != other.shape or other.size == 0:
        return float("inf")
    found, scale = float(np.abs(one.astype(np.float64) - other).max()), float(np.abs(other).max())
    spread = float(np.abs(other - other.mean(0)).max()) / FAINT
    return found / (min(scale, spread or scale) or 1.0)


@contextmanager
def _watched(module: nn.Module, seen: list[str], found: dict[str, list[Array]]) -> Iterator[None]:
    """Note the modules without parts of their own that run, and what they return."""

    def note(path: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            seen.append(path)
            if isinstance(output, torch.Tensor):
                found.setdefault(path, []).append(output.detach().cpu().numpy().copy())

        return hook

    leaves = [(path, one) for path, one in module.named_modules() if not list(one.children())]
    hooks = [one.register_forward_hook(note(path)) for path, one in leaves]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _first(
    model: ModelProto,
    feeds: Mapping[str, Array],
    pairs: Sequence[tuple[Layer, Layer]],
    found: Mapping[str, list[Array]],
) -> str:
    """Say at which layer the module first computes something else."""
    opened = copied(model)
    given = {output.name for output in model.graph.output}
    inside = list(dict.fromkeys(theirs.output for _, theirs in pairs))
    opened.graph.output.extend(ValueInfoProto(name=n) for n in inside if n not in given)
    expected = dict(
        zip(inside, session(opened, device="cpu").run(inside, dict(feeds)), strict=True)
    )
    times: dict[str, int] = {}
    for ours, theirs in pairs:
        path = (ours.norm.mean if ours.norm else ours.weight).rpartition(".")[0]
        time = times[path] = times.get(path, -1) + 1
        runs = found.get(path, [])
        if time < len(runs) and difference(runs[time], expected[theirs.output]) > FIRST:
            return f", first behind '{path}'"
    return ""
