"""Pruning as a pass of Olive, Microsoft's tool that takes models through a workflow of passes.

    python -m onnxprune.integrations.olive -o package.json
    olive run --config workflow.json --package-config package.json

The first line writes Olive's own list of passes with `OnnxPrune` added to it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.data import SampleSource
from onnxprune.errors import DataError
from onnxprune.files import write_whole
from onnxprune.integrations.packages import tool
from onnxprune.run import prune
from onnxprune.search import OPTIONS, Settings

tool("olive.passes", "olive")

from olive.common.config_utils import validate_config  # noqa: E402 -- after a word on its extra
from olive.data.config import DataConfig  # noqa: E402
from olive.hardware.accelerator import AcceleratorSpec  # noqa: E402
from olive.model import ONNXModelHandler  # noqa: E402
from olive.model.utils import resolve_onnx_path  # noqa: E402
from olive.package_config import OlivePackageConfig  # noqa: E402
from olive.passes import Pass  # noqa: E402
from olive.passes.onnx.common import (  # noqa: E402
    get_external_data_config,
    model_proto_to_olive_model,
)
from olive.passes.pass_config import BasePassConfig, PassConfigParam  # noqa: E402
from olive.search.search_parameter import Categorical  # noqa: E402

TRIED = (0.3, 0.5, 0.7)
"""Shares of the multiply-adds that Olive's search tries, where a workflow names none."""


class OnnxPrune(Pass):  # type: ignore[misc]
    """Removes convolution filters from an ONNX model, without training.

    Its parameters are the options of `onnxprune.Settings`, and the samples: `data`, as
    `onnxprune prune --data` takes them, or `data_config`, one of Olive's own.
    """

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        options = {
            name: PassConfigParam(
                type_=Any, default_value=one.default, description=one.metadata["rule"].help
            )
            for name, one in OPTIONS.items()
        }
        options["macs"].search_defaults = Categorical(list(TRIED))
        data = PassConfigParam(type_=str, description="Samples, as onnxprune prune --data takes.")
        own = PassConfigParam(
            type_=DataConfig | dict, description="Samples, as a data config of Olive."
        )
        return {**options, "data": data, "data_config": own, **get_external_data_config()}

    @classmethod
    def validate_config(
        cls, config: type[BasePassConfig], accelerator_spec: AcceleratorSpec
    ) -> bool:
        """Refuse wrong parameters in one line, before the model is read."""
        _settings(config)
        return True

    def _run_for_config(
        self, model: ONNXModelHandler, config: type[BasePassConfig], output_model_path: str
    ) -> ONNXModelHandler:
        result = prune(model.load_model(), _samples(config), settings=_settings(config))
        place = Path(resolve_onnx_path(output_model_path, Path(model.model_path).name))
        pruned = model_proto_to_olive_model(
            result.model, place, config.model_dump(), force_model_dir=True
        )
        report = json.dumps(result.report, indent=2) + "\n"
        beside = [
            result.plan.save(place.parent / "plan.json"),
            write_whole(place.parent / "report.json", report),
        ]
        kept = dict(model.model_attributes or {})
        pruned.model_attributes = {**kept, "additional_files": sorted(map(str, beside))}
        return pruned


def _settings(config: type[BasePassConfig]) -> Settings:
    """The settings that a workflow asks for; JSON has lists where Python has tuples."""
    return Settings.of(**{name: getattr(config, name) for name in OPTIONS})


def _samples(config: type[BasePassConfig]) -> SampleSource | None:
    if config.data and config.data_config:
        raise DataError("OnnxPrune: has data and data_config; expected one of the two")
    return _batches(config.data_config) if config.data_config else config.data


def _batches(data_config: Any) -> Iterator[tuple[Any, Any]]:
    """The batches of one of Olive's loaders as arrays: an input or inputs by name, and targets."""
    container = validate_config(data_config, DataConfig).to_data_container()
    for x, y in container.create_dataloader():
        arrays = {k: np.asarray(v) for k, v in x.items()} if hasattr(x, "items") else np.asarray(x)
        yield arrays, np.asarray(y)


def package() -> dict[str, Any]:
    """Return the passes of the installed Olive, as its package config lists them, and this one."""
    listed = json.loads(Path(OlivePackageConfig.get_default_config_path()).read_text("utf-8"))
    listed["passes"]["OnnxPrune"] = {
        "module_path": f"onnxprune.integrations.olive.{OnnxPrune.__name__}",
        **{f"supported_{what}": ["*"] for what in ("providers", "accelerators", "precisions")},
        "dataset": "dataset_optional",
    }
    return dict(listed)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the package config that `olive run --package-config` needs to find the pass."""
    parser = argparse.ArgumentParser(
        prog="python -m onnxprune.integrations.olive", description=main.__doc__
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="The file to write.")
    write_whole(parser.parse_args(arguments).output, json.dumps(package(), indent=2) + "\n")


if __name__ == "__main__":
    main()
