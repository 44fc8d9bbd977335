"""Exported models as ONNX text without weights: what the exporter wrote, but for three things.

* Weights are declared and not given; a name that starts with `positive_` says that all its elements
  were (variances, scales). Integers and single numbers are given: shapes, axes and bounds.
* Names keep to letters, digits and underscores, which every version of the parser reads.
* Declared types of tensors that nodes write are left out, unless they are asked for.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, TypeProto, helper, numpy_helper, printer

HERE = Path(__file__).parent
FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE}


def save(model: ModelProto, name: str, made_by: str, *, declared: bool = False) -> None:
    """Write `name`.onnxtxt beside this file, with a line that says who made it."""
    small = without_weights(model, declared=declared)
    opsets = ", ".join(f'"{entry.domain}" : {entry.version}' for entry in small.opset_import)
    header = f"<ir_version: {small.ir_version}, opset_import: [{opsets}]>"
    body = _one_to_a_line(printer.to_text(small.graph)).replace('[""] ', "")
    (HERE / f"{name}.onnxtxt").write_text(f"# {made_by}\n{header}\n{body}\n")


def without_weights(model: ModelProto, *, declared: bool = False) -> ModelProto:
    """Return the model with its weights declared in place of given."""
    found = ModelProto()
    found.CopyFrom(model)
    graph = found.graph
    if not declared:
        del graph.value_info[:]
    _hoist(graph)
    given, weights = [], []
    for tensor in graph.initializer:
        (weights if _is_weight(tensor) else given).append(tensor)
    positive = {t.name for t in weights if (numpy_helper.to_array(t) > 0).all()}
    held = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in held]
    types = [v for v in graph.value_info if v.name not in held and v.type.tensor_type.elem_type]
    for field, kept in (
        (graph.initializer, given),
        (graph.input, inputs),
        (graph.value_info, types),
    ):
        del field[:]
        field.extend(kept)
    graph.value_info.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in weights
    )
    _rename(graph, positive)
    return found


def _is_weight(tensor: TensorProto) -> bool:
    return tensor.data_type in FLOATS and int(np.prod(tensor.dims)) > 1


def _hoist(graph: GraphProto) -> None:
    """Turn the weights that Constant nodes hold into initializers."""
    nodes = []
    for node in graph.node:
        value = node.attribute[0].t if node.op_type == "Constant" else TensorProto()
        if _is_weight(value):
            value.name = node.output[0]
            graph.initializer.append(value)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _rename(graph: GraphProto, positive: set[str]) -> None:
    names: dict[str, str] = {"": ""}

    def plain(name: str) -> str:
        if name not in names:
            short = re.sub(r"\W+", "_", name).strip("_")
            if name in positive or not short[:1].isalpha():
                short = f"{'positive' if name in positive else 't'}_{short}"
            while short in names.values():
                short += "_"
            names[name] = short
        return names[name]

    graph.name = "exported"
    graph.doc_string = ""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = plain(value.name)
        value.doc_string = ""
    for value in (*graph.input, *graph.output, *graph.value_info):
        _plain_axes(value.type)
    for node in graph.node:
        node.name = node.doc_string = ""
        del node.metadata_props[:]
        while node.input and not node.input[-1]:  # old parsers know no empty name
            node.input.pop()
        node.input[:] = [plain(name) for name in node.input]
        node.output[:] = [plain(name) for name in node.output]
        for attribute in node.attribute:
            attribute.t.name = ""


def _plain_axes(kind: TypeProto) -> None:
    """An open axis without a plain name gets one."""
    for k, dim in enumerate(kind.tensor_type.shape.dim):
        if not dim.HasField("dim_value"):
            dim.dim_param = re.sub(r"\W+", "", dim.dim_param) or f"d{k}"


def _one_to_a_line(text: str) -> str:
    """Break the list of constants, `<float[8] a, int64[2] b = {1, 2}>`, into lines."""
    head, brace, nodes = text.partition("\n{")
    if "\n" not in head:
        return text
    signature, _, constants = head.partition("\n")
    constants = re.sub(r", (?=\w+(\[[^]]*\])? \w)", ",\n    ", constants.strip())
    return f"{signature.rstrip()}\n   {constants}{brace}{nodes}"
