"""A network in the forms in which exporters write it."""

from dataclasses import dataclass

import onnx
from torch import nn

from onnxprune.converters._export import Options, finish
from onnxprune.converters._noise import quiet as quietly
from onnxprune.converters.pytorch import export_network


@dataclass(frozen=True)
class Exporter:
    """One exporter with the options that change the graph it writes."""

    options: Options

    def __call__(self, network: nn.Module, name: str, size: int) -> onnx.ModelProto:
        options = Options(**{**vars(self.options), "input_shape": (3, size, size)})
        with quietly():
            return finish(export_network(network, name, options), name, options)


EXPORTERS = {
    "classic-11": Exporter(Options(exporter="classic", opset=11)),
    "classic-13": Exporter(Options(exporter="classic", opset=13)),
    "classic-17": Exporter(Options(exporter="classic", opset=17)),
    "classic-13-batchnorm": Exporter(Options(exporter="classic", opset=13, keep_batchnorm=True)),
    "dynamo": Exporter(Options(exporter="dynamo")),
    "dynamo-batchnorm": Exporter(Options(exporter="dynamo", keep_batchnorm=True)),
}
"""By name; the number is the opset, "batchnorm" says that normalisation is not folded."""
