"""Variants of a model: in float and in INT8, and those of the unpruned model beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from onnx import ModelProto

from onnxprune.data import Data
from onnxprune.deploy.int8 import Int8, quantise
from onnxprune.deploy.nncf import NncfQuantiser
from onnxprune.deploy.outputs import TOLERANCE
from onnxprune.deploy.quantiser import Quantiser, StaticQuantiser
from onnxprune.errors import DataError, InvalidModel, InvalidValue, UnreachableTarget
from onnxprune.graph import Graph
from onnxprune.runtimes import QUANTISED, RUNTIMES, Runtime
from onnxprune.search import Settings, complete, make_evaluator

QUANTISERS = ("onnxruntime", "nncf")
"""What quantises, the first by default."""
QDQ = ("onnxruntime", "openvino", "ort-mobile", "tensorrt")
"""The runtimes that compute pairs of QuantizeLinear and DequantizeLinear in INT8."""
IN_INT8 = {"float": "INT8", "pruned": "both"}
"""The label of a variant, and that of the same in INT8."""
SYMMETRIC = "tensorrt"
"""A runtime whose activations have no zero point."""
ROUNDINGS = 3.0
"""How much further from the float model another runtime may be than onnxruntime in INT8 is:
each rounds its sums in its own way."""

OnStep = Callable[[str, float | None], object]


@dataclass(frozen=True)
class Variant:
    """One model to deploy. Its files are called by `stem`; without one it is only measured.

    `reference` gives the outputs that are right. Without a `model` there is a `reason`.
    """

    label: str
    model: ModelProto | None
    reference: ModelProto
    stem: str = ""
    tolerance: float = TOLERANCE
    reason: str = ""

    @property
    def quantised(self) -> bool:
        """Whether it is another model than the one that its outputs are held against."""
        return self.model is not self.reference

    def suits(self, runtime: Runtime) -> bool:
        """Return whether a runtime computes this variant."""
        return not self.quantised or takes_qdq(runtime)


def takes_qdq(runtime: Runtime) -> bool:
    """Return whether a runtime computes INT8 of QDQ form; one of the user's own may."""
    return runtime.name in QDQ or runtime.name not in RUNTIMES


def in_float(
    model: ModelProto, original: ModelProto | None, stem: str, tolerance: float, *, named: bool
) -> list[Variant]:
    """Return the variants in float; their labels are empty unless they are `named`."""
    if original is None:
        return [Variant("float" if named else "", model, model, stem, tolerance)]
    return [
        Variant("float", original, original, "", tolerance),
        Variant("pruned", model, model, stem, tolerance),
    ]


@dataclass(frozen=True)
class Quantising:
    """How models are quantised, and what came of it.

    `error` measures the outputs of a model against those of another one, as a share.
    """

    by: str
    data: Data
    settings: Settings
    error: Callable[[ModelProto, ModelProto], float]
    on_step: OnStep
    symmetric: bool = False

    def of(self, variant: Variant) -> tuple[Variant, dict[str, Any]]:
        """Return a variant in INT8 and what to tell of it.

        Raises: MissingPackage without NNCF; DataError or InvalidModel where nothing is quantised.
        """
        label = IN_INT8[variant.label]
        stem = f"{variant.stem}{QUANTISED}" if variant.stem else ""
        self.on_step(f"{label}: preparing the model and calibrating", None)
        floor = complete(self.settings, self.data).floor
        told: dict[str, Any] = {"variant": label}
        try:
            found = quantise(
                self._quantiser(variant.reference),
                make_evaluator(self.data, self.settings),
                floor,
                on_trial=partial(self._tell, label),
            )
        except UnreachableTarget as error:
            told["refused"] = str(error)
            return Variant(label, None, variant.reference, stem, reason=str(error)), told
        told |= _told(found)
        self.on_step(f"{label}: comparing its outputs with those in float", None)
        allowed = ROUNDINGS * self.error(found.model, variant.reference) + variant.tolerance
        return Variant(label, found.model, variant.reference, stem, allowed), told

    def _tell(self, label: str, number: int, ahead: int, score: float) -> None:
        """Say what an evaluation came to, and which share of them is done."""
        about = f" of about {number + ahead}" if ahead else ""
        said = f"evaluation {number}{about}" if number else "evaluated in float"
        line = f"{label}: {said}, harmonic mean {100 * score:.1f} %"
        self.on_step(line, number / max(number + ahead, 1))

    def _quantiser(self, model: ModelProto) -> Quantiser:
        if self.by == "nncf":
            return NncfQuantiser(model, self.data)
        return StaticQuantiser(model, self.data, symmetric=self.symmetric)


def _told(found: Int8) -> dict[str, Any]:
    """What `deploy.json` says of a model in INT8."""
    return {
        "made_by": found.made_by,
        "nodes": len(found.nodes),
        "kept": [
            {"name": name, "nodes": count, "harmonic": score} for name, count, score in found.blocks
        ],
        "evaluations": found.evaluations,
        "floor": found.level,
        "calibration": {
            "float": found.unquantised.to_json(),
            "all in INT8": found.plain.to_json(),
            "INT8": found.accuracy.to_json(),
        },
    }


def same_ports(model: ModelProto, original: ModelProto) -> None:
    """Refuse an unpruned model that takes or gives something else.

    Raises: InvalidModel.
    """
    one, other = Graph(model), Graph(original)
    if (one.inputs, one.outputs) != (other.inputs, other.outputs):
        raise InvalidModel(
            f"original: takes {', '.join(other.inputs)} and gives {', '.join(other.outputs)}, the "
            f"model {', '.join(one.inputs)} and {', '.join(one.outputs)}; give the unpruned model"
        )


def check_asked(by: str | None, calibrated: bool, runtimes: Sequence[Runtime]) -> None:
    """Refuse INT8 without samples to calibrate with or a runtime for it, and the other way about.

    Raises: DataError, InvalidValue.
    """
    if by is not None and not calibrated:
        raise DataError("int8: needs samples to calibrate with; give --calibrate REF")
    if by is None and calibrated:
        raise DataError("calibrate: serves INT8 only; give --int8, too")
    if by is not None and not any(map(takes_qdq, runtimes)):
        names = ", ".join(runtime.name for runtime in runtimes)
        raise InvalidValue(
            f"int8: the runtime asked for ({names}) computes no INT8 of QDQ form; add one of "
            f"{', '.join(QDQ)} to --to, or leave out --int8 and quantise with its own tool"
        )


def _several(nodes: int) -> str:
    return f" ({nodes} nodes)" if nodes > 1 else ""


def remarks(told: dict[str, Any]) -> Iterator[str]:
    """Yield what to say of a model in INT8 under the table."""
    if "refused" in told:
        return
    where = told["calibration"]
    means = {name: f"{100 * found['harmonic']:.1f} %" for name, found in where.items()}
    yield (
        f"{told['variant']}: by {told['made_by']}; on the calibration samples {means['float']} in "
        f"float, {means['all in INT8']} with all in INT8, {means['INT8']} so "
        f"({told['evaluations']} evaluation{'s' * (told['evaluations'] != 1)})"
    )
    count = sum(one["nodes"] for one in told["kept"])
    if count:
        blocks = (
            f"{one['name']}{_several(one['nodes'])}, {100 * one['harmonic']:.1f} %"
            for one in told["kept"]
        )
        yield (
            f"{told['variant']}: {count} of {told['nodes']} nodes stay in float; with them in INT8 "
            f"the harmonic mean would be: {'; '.join(blocks)}"
        )
