"""Export a torch network that ends in features or scores: BatchNorm folded, batch size free."""

import copy
import logging
import warnings

import onnx
import torch
from torch import nn

IR_VERSION = 10


def export_features(
    network: nn.Module, shape: tuple[int, int, int], output: str = "features"
) -> onnx.ModelProto:
    """Export a network with torch's exporter, and name each convolution after its weight.

    Shapes: image [batch, *shape] -> output [batch, F].
    """
    network = copy.deepcopy(network).eval()
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (torch.zeros(2, *shape),),
                input_names=["image"],
                output_names=[output],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
    finally:
        quiet.setLevel(level)
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    model.ir_version = IR_VERSION
    for node in model.graph.node:
        del node.metadata_props[:]
        if node.op_type == "Conv":
            node.name = node.input[1].removesuffix(".weight")
    onnx.checker.check_model(model, full_check=True)
    return model
