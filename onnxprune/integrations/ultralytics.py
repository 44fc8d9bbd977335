"""Pruning a model of Ultralytics, judged by its own validator.

    result = ultralytics.prune("best.pt", data="data.yaml", max_drop=0.02, output="small.onnx")

The images are those of the validator's loader, and the score of a class is the mean average
precision that `YOLO("small.onnx").val(data="data.yaml")` prints for it. Ultralytics is under the
AGPL, or a licence that is bought: nothing but this module imports it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray, IntArray
from onnxprune.errors import ConversionError, DataError, InvalidValue
from onnxprune.files import check_place, temporary
from onnxprune.integrations.packages import tool
from onnxprune.run import Result
from onnxprune.run import prune as prune_model

EXTRA = "ultralytics"
TASKS = ("detect", "segment", "pose", "obb")
"""Tasks whose validator gives an average precision for each class."""

METRIC = f"{__name__}:maps"

logger = logging.getLogger(__name__)


def prune(
    weights: str | Path,
    data: str | Path,
    *,
    split: str = "val",
    images: int | None = 200,
    output: str | Path | None = None,
    imgsz: int | None = None,
    **options: Any,
) -> Result:
    """Prune a `.pt` or an exported `.onnx` of a detection, segmentation, pose or OBB model.

    `data` is the dataset's YAML file, `split` the images of it that decide, of which `images` are
    taken at even distances, or all with None. `imgsz` is the size to export a `.pt` with, by
    default that of its training. `options` are those of `onnxprune.prune`, such as `max_drop`.
    The pruned model keeps its metadata, so that `YOLO(output)` reads it; it is written to `output`
    if there is one.
    Raises: MissingPackage without Ultralytics; DataError for data that its validator does not take;
    OnnxPruneError, as `onnxprune.prune` does.
    """
    if "metric" in options:
        raise InvalidValue("metric: is that of the validator here; use onnxprune.prune for another")
    if output is not None:
        check_place(output)
    with temporary() as folder:
        path = exported(Path(weights), folder, imgsz)
        judge = Judge(path, data, split, images)
        targets = np.arange(len(judge.x)).reshape(-1, 1)
        with _judged_by(judge):
            result = prune_model(path, (judge.x, targets), metric=METRIC, **options)
    if (check := result.check) is not None:  # a file is judged before it takes its name
        result = replace(result, check=lambda file: _judged_by(judge)(check)(file))
    result.report["classes"] = list(judge.names)
    if output is not None:
        result.save(output)
    return result


def exported(weights: Path, folder: Path, imgsz: int | None = None) -> Path:
    """Return the ONNX file of a model, exported into `folder` from a `.pt` where it is none.

    Raises: ConversionError where Ultralytics cannot export it; MissingPackage without Ultralytics.
    """
    yolo = tool("ultralytics", EXTRA).YOLO
    if weights.suffix == ".onnx":
        return weights
    if not weights.is_file():
        raise ConversionError(f"{weights}: no such file; expected a .pt or .onnx of Ultralytics")
    copy = shutil.copy(weights, folder)
    size = {} if imgsz is None else {"imgsz": imgsz}
    try:
        return Path(yolo(copy).export(format="onnx", simplify=False, **size))
    except Exception as error:  # whatever it is that Ultralytics cannot do
        raise ConversionError(f"{weights}: Ultralytics cannot export it ({error})") from error


class Judge:
    """The validator of a model: its images, and what it says of outputs for them.

    Shapes: x `[n, channels, height, width]`, as the model takes them.
    Raises: DataError for data or a model that the validator does not take.
    """

    def __init__(self, model: Path, data: str | Path, split: str, images: int | None) -> None:
        yolo = tool("ultralytics", EXTRA).YOLO(model, verbose=False)
        if yolo.task not in TASKS:
            raise DataError(
                f"{model}: its task is {yolo.task}; expected one of {', '.join(TASKS)}, so use "
                "onnxprune.prune"
            )
        made: list[Any] = []
        kind = _validator(yolo._smart_load("validator"), images, made)
        with temporary() as folder:
            quiet = {"plots": False, "verbose": False, "project": str(folder), "device": "cpu"}
            try:
                yolo.val(validator=kind, data=str(data), split=split, batch=1, rect=False, **quiet)
            except Exception as error:  # whatever it is that Ultralytics does not take
                raise DataError(f"{data}: Ultralytics cannot validate on it ({error})") from error
        (self.validator,) = made
        self._batches = [self.validator.preprocess(batch) for batch in self.validator.dataloader]
        self.x: npt.NDArray[np.float32] = np.concatenate([one["img"] for one in self._batches])
        for k, batch in enumerate(self._batches):
            batch["img"] = tool("torch", "cpu").from_numpy(self.x[k : k + 1])
        self.names = tuple(self.validator.names.values())

    def __call__(self, outputs: Mapping[str, npt.NDArray[Any]], numbers: IntArray) -> FloatArray:
        """Return the mean average precision of each class, NaN for one without objects.

        Shapes: each output `[m, ...]`, numbers `[m]`, those of the images; `[classes]`.
        """
        torch = tool("torch", "cpu")
        validator = self.validator
        validator.init_metrics(validator.judged)
        seen: set[int] = set()
        for row, number in enumerate(numbers.tolist()):
            given = [torch.from_numpy(rows[row : row + 1].copy()) for rows in outputs.values()]
            found = validator.postprocess(given[0] if len(given) == 1 else given)
            validator.update_metrics(found, self._batches[number])
            seen |= set(self._batches[number]["cls"].flatten().int().tolist())
        validator.get_stats()
        scores = np.full(len(self.names), np.nan)
        scores[sorted(seen)] = 0.0
        measured = [m for m in _measured(validator.metrics) if len(m.ap_class_index)]
        for one in measured:
            scores[one.ap_class_index] += np.asarray(one.ap) / len(measured)
        clipped: FloatArray = np.minimum(scores, 1.0)
        return clipped


def _measured(metrics: Any) -> list[Any]:
    """What a task measures of a class: boxes, and masks or key points."""
    return [getattr(metrics, name) for name in ("box", "seg", "pose") if hasattr(metrics, name)]


def _validator(base: type[Any], images: int | None, made: list[Any]) -> type[Any]:
    """A validator of that kind that looks at some images, and can be asked again."""

    class Validator(base):  # type: ignore[misc]
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            made.append(self)

        def init_metrics(self, model: Any) -> None:
            self.judged = model
            super().init_metrics(model)

        def get_dataloader(self, dataset_path: str, batch_size: int) -> Any:
            loader = super().get_dataloader(dataset_path, batch_size)
            total = len(loader.dataset)
            if images is None or total <= images:
                return loader
            data = tool("torch.utils.data", "cpu")
            chosen = np.linspace(0, total - 1, images).round().astype(int).tolist()
            part = data.Subset(loader.dataset, chosen)
            return data.DataLoader(part, batch_size, collate_fn=loader.dataset.collate_fn)

    return Validator


_JUDGE: ContextVar[Judge] = ContextVar("judge")


@contextmanager
def _judged_by(judge: Judge) -> Iterator[None]:
    """Let this judge say what `maps` is, until the block ends."""
    token = _JUDGE.set(judge)
    try:
        yield
    finally:
        _JUDGE.reset(token)


def maps(outputs: Any, targets: Any, numbers: IntArray) -> FloatArray:
    """The metric of a run, which knows metrics by their names: what the judge of it says."""
    return _JUDGE.get()(outputs, numbers)
