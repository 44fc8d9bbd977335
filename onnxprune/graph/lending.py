"""A copy of a model that takes its large weights from the model when they are needed."""

from __future__ import annotations

from collections import Counter
from functools import partial

from onnx import ModelProto

from onnxprune.graph.large_weights import AS_THEY_LIE, Weight, Weights
from onnxprune.graph.storage import is_large, read_tensor, shell


def lent(model: ModelProto) -> tuple[ModelProto, Weights]:
    """Return a copy of a model without the values of its large weights, and these.

    They are read off the model whenever they are asked for: it must stay as it is until then.
    """
    bare, weights = shell(model, keep=lambda _: False), dict[str, Weight]()
    times = Counter(tensor.name for tensor in model.graph.initializer)
    for tensor in model.graph.initializer:
        place = bare.graph.initializer.add()
        plain = tensor.data_type in AS_THEY_LIE and tensor.HasField("raw_data")
        if not is_large(tensor) or not plain or times[tensor.name] > 1:
            place.CopyFrom(tensor)
            continue
        place.name, place.data_type = tensor.name, tensor.data_type
        place.dims.extend(tensor.dims)
        place.metadata_props.extend(tensor.metadata_props)
        if tensor.HasField("doc_string"):
            place.doc_string = tensor.doc_string
        weights[tensor.name] = Weight(partial(read_tensor, tensor))
    return bare, weights
