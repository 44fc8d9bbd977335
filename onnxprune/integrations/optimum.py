"""Pruning the folder of an exported model, as Optimum's `ORTQuantizer` quantises one.

    pruner = ORTPruner.from_pretrained("resnet-onnx/")
    pruner.prune(save_dir="resnet-pruned/", dataset=rows, max_drop=0.02)

The folder is what `optimum-cli export onnx` writes: the model, `config.json`, and what prepares its
inputs. Optimum itself is not needed; `ORTModel...from_pretrained` reads what is written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from onnxprune.errors import DataError, InvalidModel, InvalidValue
from onnxprune.files import make_folder, write_whole
from onnxprune.integrations.packages import tool
from onnxprune.run import Result, prune

LABELS = ("label", "labels")
"""Columns that name the class of a row."""
IMAGES = ("image", "img")
"""Columns of images that are not prepared yet."""


class ORTPruner:
    """Prunes the ONNX model of a folder.

    `result` is what the last call of `prune` came to, its plan and report included.
    """

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.result: Result | None = None

    @classmethod
    def from_pretrained(cls, model: Any, file_name: str | None = None) -> ORTPruner:
        """Take the folder of an exported model, or an `ORTModel` that was read from one.

        `file_name` is needed where the folder holds several models.
        Raises: InvalidModel where there is no such folder, or not exactly one model in it.
        """
        place = getattr(model, "path", model)
        if not isinstance(place, str | Path):
            raise InvalidModel(
                f"model: is {type(model).__name__}; expected a folder or an ORTModel"
            )
        place = Path(place)
        if place.is_file():
            return cls(place.parent, place)
        if not place.is_dir():
            raise InvalidModel(f"{place}: no such folder; export the model into one first")
        found = [place / file_name] if file_name else sorted(place.rglob("*.onnx"))
        found = [path for path in found if path.is_file()]
        if len(found) != 1:
            names = ", ".join(path.relative_to(place).as_posix() for path in found) or "no model"
            raise InvalidModel(f"{place}: holds {names}; expected one, or give its file_name")
        return cls(place, found[0])

    def prune(self, save_dir: str | Path, dataset: Any = None, **options: Any) -> Path:
        """Prune, write the folder with the pruned model in place of the other, and return it.

        `dataset` is what `onnxprune.prune` takes, or rows of columns, as a `datasets.Dataset` has
        them: the inputs of the model by name, or `image`, which the processor of the folder
        prepares, and, if there is one, `label`. `options` are those of `onnxprune.prune`.
        Raises: InvalidValue where save_dir is the folder itself; DataError for rows that do not
        fit; OnnxPruneError, as `onnxprune.prune` does.
        """
        save_dir = Path(save_dir)
        if save_dir.resolve() == self.folder.resolve():
            raise InvalidValue(f"save_dir {save_dir}: is the model's own; expected another folder")
        make_folder(save_dir)
        bare = onnx.load(self.model, load_external_data=False)
        if _has_columns(dataset):
            dataset, sizes = self._rows(dataset, bare)
            options.setdefault("input_shapes", sizes)
        result = prune(self.model, dataset, **options)
        apart = {self.model, *_data_files(bare, self.model.parent)}
        for path in self.folder.rglob("*"):
            if path.is_file() and path not in apart:
                kept = save_dir / path.relative_to(self.folder)
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, kept)
        target = save_dir / self.model.relative_to(self.folder)
        make_folder(target.parent)
        result.save(target)
        result.plan.save(save_dir / "plan.json")
        write_whole(save_dir / "report.json", json.dumps(result.report, indent=2) + "\n")
        self.result = result
        return save_dir

    def _rows(
        self, rows: Iterable[Mapping[str, Any]], model: onnx.ModelProto
    ) -> tuple[list[Any], dict[str, tuple[int, ...]]]:
        """Samples, and the sizes of inputs: Optimum exports models that leave all of them open."""
        weights = {tensor.name for tensor in model.graph.initializer}
        names = [one.name for one in model.graph.input if one.name not in weights]
        samples: list[Any] = []
        sizes: dict[str, tuple[int, ...]] = {}
        for row in rows:
            inputs = self._inputs(row, names)
            sizes = sizes or {name: (1, *array.shape) for name, array in inputs.items()}
            x = inputs if len(names) > 1 else inputs[names[0]]
            label = next((row[key] for key in LABELS if key in row), None)
            samples.append(x if label is None else (x, label))
        return samples, sizes

    def _inputs(self, row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """The inputs of a row by name, prepared by the processor of the folder if need be."""
        image = next((row[key] for key in IMAGES if key in row), None)
        if not all(name in row for name in names) and image is not None:
            row = {**row, **self._processor(images=image, return_tensors="np")}
        missing = [name for name in names if name not in row]
        if missing:
            raise DataError(
                f"dataset: a row has {', '.join(row)}; expected {', '.join(missing)} as the model "
                "takes it, or image"
            )
        return {name: _one(row[name]) for name in names}

    @cached_property
    def _processor(self) -> Any:
        return tool("transformers", "optimum").AutoImageProcessor.from_pretrained(self.folder)


def _has_columns(dataset: Any) -> bool:
    """Whether a dataset is rows of columns, one mapping each."""
    return hasattr(dataset, "column_names") or (
        isinstance(dataset, list | tuple) and bool(dataset) and isinstance(dataset[0], Mapping)
    )


def _one(value: Any) -> Any:
    """An input of one sample; processors return a batch of one."""
    array = np.asarray(value)
    return array[0] if array.ndim == 4 and len(array) == 1 else array


def _data_files(model: onnx.ModelProto, folder: Path) -> set[Path]:
    """The files beside a model that hold its weights."""
    tensors = (tensor for tensor in model.graph.initializer if uses_external_data(tensor))
    return {folder / ExternalDataInfo(tensor).location for tensor in tensors}
