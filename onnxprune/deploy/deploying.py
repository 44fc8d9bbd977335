"""Deploy: a model for several runtimes, each verified before its files are written."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from onnx import ModelProto

from onnxprune.data import Data, SampleSource
from onnxprune.deploy.request import Request
from onnxprune.deploy.trial import DONE, FAILED, MISSING, WRONG, OnStep, Row, Trial
from onnxprune.deploy.variants import (
    IN_INT8,
    SYMMETRIC,
    Quantising,
    Variant,
    check_asked,
    in_float,
    same_ports,
)
from onnxprune.errors import InvalidModel, InvalidValue, check_name
from onnxprune.evaluation import reason, session
from onnxprune.files import folder_to_fill, move_whole, scratch, write_whole
from onnxprune.graph import ModelSource, digest, file_size, load_model, naming_file, sweep_weights
from onnxprune.runtimes import RECORD, Place, Runtime, find_runtime
from onnxprune.search import (
    Settings,
    check_baseline,
    make_evaluator,
    merged,
    metric_name,
    open_model,
    parts_of,
)


def deploy(
    model: ModelSource,
    output: str | Path,
    data: SampleSource | None = None,
    settings: Settings | None = None,
    *,
    request: Request | None = None,
    original: ModelSource | None = None,
    int8: str | None = None,
    calibrate: SampleSource | None = None,
    on_step: OnStep = lambda line, share: None,
    **options: Any,
) -> dict[str, Any]:
    """Write a model for other runtimes into a folder, and return what was measured of each.

    Each runtime converts, loads and runs the model in a process of its own. Only what gives the
    outputs that onnxruntime gives, on all samples, is written. Without samples inputs are made up,
    and there is no accuracy. `options` are fields of `Request`, such as `to`, and of `Settings`.
    With `int8`, one of `QUANTISERS`, there is a variant in INT8 beside the one in float. It is
    calibrated on the samples `calibrate`; as many nodes stay in float as the floor of the settings
    needs there. The `original`, unpruned model is measured beside both, and not written.
    `on_step` is told what is done, and which share of it.
    Raises: OnnxPruneError for whatever is wrong with the model, the samples or the folder; what
    goes wrong with a runtime is in its row.
    """
    own = {name: options.pop(name) for name in vars(Request()) if name in options}
    request, asked = replace(request or Request(), **own), merged(settings, options)
    runtimes = [find_runtime(name) for name in dict.fromkeys(request.to)]
    check_asked(int8, calibrate is not None, runtimes)
    proto, stem = load_model(model), _stem(model)
    whole = None if original is None else load_model(original)
    if whole is not None:
        same_ports(proto, whole)
    base = proto if whole is None else whole
    with naming_file(model if original is None else original):
        graph, samples = open_model(base, data, asked, pruned=proto)
    for one, source in ((proto, model), (whole, original)):
        _check_runs(one, source, asked)
    if samples is not None:
        on_step(f"onnxruntime: running {len(samples)} samples", None)
    check_baseline(base, samples, asked, decide=False)
    judge = None if samples is None else make_evaluator(samples, asked)
    accuracy = None if judge is None else judge(proto).to_json()
    reference = None
    if calibrate is not None:
        _, reference = open_model(base, calibrate, asked, pruned=proto)
    with folder_to_fill(output) as folder:
        if any(_places(runtime, stem, folder)[0].resolve() == _own(model) for runtime in runtimes):
            raise _holds_itself(output)
        trial = Trial(graph, samples, judge, asked, _where(runtimes, asked, request), on_step)
        variants = in_float(proto, whole, stem, request.tolerance, named=int8 is not None)
        told = []
        if int8 is not None and reference is not None:
            symmetric = SYMMETRIC in request.to
            by = Quantising(int8, reference, asked, trial.error, on_step, symmetric)
            pairs = [by.of(variant) for variant in variants]
            variants += [variant for variant, _ in pairs]
            told = [one for _, one in pairs]
        record = {
            "source": _source(model, folder),
            "model": {"name": stem, "sha256": digest(proto), "size_bytes": file_size(proto)},
            **_judged(samples, asked, accuracy),
            "threads": asked.threads,
            "tolerance": request.tolerance,
            "machine": {"system": platform.platform(), "python": platform.python_version()},
            "inputs": {name: list(shape) for name, shape in trial.sizes().items()},
            "outputs": list(graph.outputs),
            "int8": told,
            "rows": (rows := list[dict[str, Any]]()),
        }
        say = partial(_say, folder, record)
        for runtime in runtimes:
            for variant in variants:
                row = _deployed(trial, runtime, variant, folder, say, _own(model))
                rows.append(row.to_json())
                say()
    return record


def _check_runs(model: ModelProto | None, source: ModelSource | None, settings: Settings) -> None:
    """Refuse a model that onnxruntime refuses: nothing could be held against its outputs.

    Raises: InvalidModel, naming the file.
    """
    try:
        if model is not None:
            session(model, device="cpu", threads=settings.threads)
    except InvalidModel as error:
        called = source if isinstance(source, str | Path) else "model"
        why = reason(error.__cause__) if isinstance(error.__cause__, Exception) else error
        raise InvalidModel(
            f"{called}: onnxruntime refuses it: {why}; every runtime is held against onnxruntime, "
            "so export the model with operators that it knows"
        ) from error


def _holds_itself(output: str | Path) -> InvalidValue:
    return InvalidValue(f"{output}: holds the model itself; name another folder to deploy to")


def _say(folder: Path, record: Mapping[str, Any]) -> None:
    """Write what is known so far."""
    write_whole(folder / RECORD, json.dumps(record, indent=2) + "\n")


def problems(record: Mapping[str, Any]) -> str:
    """Say in one line what was asked for and is not there; an empty text where all is well.

    A runtime that is not installed is no problem, unless there was no other: in float, or in INT8.
    """
    rows = record["rows"]
    bad = [f"{called(row)}: {row['status']}, {row['reason']}" for row in rows if _is_bad(row)]
    if not bad:
        small = [row for row in rows if row["variant"] in IN_INT8.values()]
        for kind in ([row for row in rows if row not in small], small):
            if not any(row["status"] == DONE for row in kind):
                bad += [f"{called(row)}: {row['reason']}" for row in kind]
    return f"not written: {'; '.join(bad)}" if bad else ""


def called(row: Mapping[str, Any]) -> str:
    """Return the name of a row: its runtime, and its variant where there are several."""
    return f"{row['runtime']}, {row['variant']}" if row["variant"] else str(row["runtime"])


def _is_bad(row: Mapping[str, Any]) -> bool:
    return row["status"] not in (DONE, MISSING)


def _stem(model: ModelSource) -> str:
    return Path(model).stem if isinstance(model, str | Path) else "model"


def _own(model: ModelSource) -> Path | None:
    return Path(model).resolve() if isinstance(model, str | Path) else None


def _source(model: ModelSource, folder: Path) -> str | None:
    """Where the model lies, as seen from the folder: `compare` reads samples by it."""
    own = _own(model)
    try:
        return None if own is None else os.path.relpath(own, folder.resolve())
    except ValueError:  # another drive
        return str(own)


def _places(runtime: Runtime, stem: str, folder: Path) -> list[Path]:
    """The files that a runtime's model would have, the main one first."""
    return runtime.files(folder / f"{stem}{runtime.suffix}")


def _where(runtimes: Sequence[Runtime], settings: Settings, request: Request) -> dict[str, Place]:
    pythons = {name: shutil.which(path) or path for name, path in request.python}
    for name in pythons:
        check_name("python: runtime", name, [runtime.name for runtime in runtimes])
    place = Place(settings.threads, limit=request.time_limit)
    return {r.name: replace(place, python=pythons.get(r.name, sys.executable)) for r in runtimes}


def _judged(
    data: Data | None, settings: Settings, accuracy: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What the model itself reaches on the samples, if there are any."""
    if data is None or accuracy is None:
        return {"samples": 0, "metric": None, "classes": [], "accuracy": None}
    return {
        "samples": len(data),
        "metric": metric_name(data, settings),
        "classes": list(parts_of(data, settings, accuracy)),
        "accuracy": accuracy,
    }


def _deployed(
    trial: Trial,
    runtime: Runtime,
    variant: Variant,
    folder: Path,
    say: Callable[[], None],
    own: Path | None,
) -> Row:
    """Try a model in a folder beside, and move what is right into place, the main file last.

    Before a file is touched, the record is written without it: killed in between, the folder holds
    no figures of another file.
    """
    with scratch(folder) as beside:
        row = _tried(trial, runtime, variant, beside)
        made = [folder / name for name in row.files if variant.stem]  # one's own names them itself
        if any(file.resolve() == own for file in made):
            raise _holds_itself(folder)
        row.files = row.files if row.status == DONE and variant.stem else []
        say()
        if variant.stem and row.status in (DONE, WRONG):  # what fails leaves what was there
            places = {*made, *_places(runtime, variant.stem, folder)}
            for file in places - _replaced(row.files, folder):
                file.unlink(missing_ok=True)  # of an earlier run, or one of several
        move_whole([beside / name for name in reversed(row.files)], folder)
        if variant.stem:
            sweep_weights(_places(runtime, variant.stem, folder)[0])
    return row


def _replaced(names: Sequence[str], folder: Path) -> set[Path]:
    """Files that new ones replace in one step: a single one, and an ONNX model.

    Where a model has a second file, its content names it, and no other model's weights.
    """
    return {folder / name for name in names if len(names) == 1 or name.endswith(".onnx")}


def _tried(trial: Trial, runtime: Runtime, variant: Variant, folder: Path) -> Row:
    """Convert and measure a variant, where there is one and the runtime computes it."""
    if not variant.suits(runtime):
        reason = "computes no INT8 of QDQ form; quantise with the runtime's own tool"
        return Row(runtime.name, variant.label, MISSING, reason)
    if variant.model is None:
        return Row(runtime.name, variant.label, FAILED, variant.reason)
    fixed = replace(trial.fixed(variant.model), original=variant.reference)
    return trial.of(
        runtime,
        fixed,
        folder,
        variant.stem or "model",
        variant=variant.label,
        tolerance=variant.tolerance,
    )
