"""Whether a model is valid, by ONNX's own checker; an operator without a schema may be anything.

Runtimes have operators of their own. TensorRT's parser expects its plugins in ONNX's domain,
onnx-graphsurgeon writes nodes of domains that the model does not import: such a node is an operator
that onnxprune does not know, and no fault of the model.
"""

from __future__ import annotations

from collections.abc import Collection, MutableSequence

import onnx
from onnx import ModelProto, OperatorSetIdProto, helper

from onnxprune.errors import InvalidModel
from onnxprune.graph.order import Body, with_subgraphs
from onnxprune.graph.storage import first_line, typed_shell

FOREIGN = "onnxprune.foreign"
"""The domain that the checker sees of an operator without a schema."""


def check_model(model: ModelProto) -> None:
    """Run ONNX's own checker on a model, except on the values of its large weights.

    Raises: InvalidModel when the model is not valid.
    """
    where = f"graph '{model.graph.name}'"
    try:
        onnx.checker.check_model(_with_foreign(typed_shell(model)))
    except (onnx.checker.ValidationError, ValueError) as error:
        raise InvalidModel(
            f"{where}: not valid ONNX: {first_line(error)}; export it again"
        ) from error


def _with_foreign(model: ModelProto) -> ModelProto:
    """Put the operators without a schema into a domain of their own, and import all domains."""
    calls = {(function.domain, function.name) for function in model.functions}
    _set_apart(model.graph, model.opset_import, calls)
    for function in model.functions:
        _set_apart(function, function.opset_import, calls)
    return model


def _set_apart(
    top: Body, imports: MutableSequence[OperatorSetIdProto], calls: Collection[tuple[str, str]]
) -> None:
    opsets = {_domain(entry.domain): entry.version for entry in imports}
    for node in (node for body in with_subgraphs(top) for node in body.node):
        domain = _domain(node.domain)
        if (node.domain, node.op_type) not in calls and not onnx.defs.has(
            node.op_type, opsets.get(domain, 1), domain
        ):
            domain = node.domain = FOREIGN
        if domain and domain not in opsets:
            imports.append(helper.make_opsetid(domain, 1))
            opsets[domain] = 1


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name
