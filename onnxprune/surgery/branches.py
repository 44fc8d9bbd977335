"""Remove whole branches: what meets them goes on with the constants that are left of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from onnxprune.channels import Remains, find_remains
from onnxprune.errors import SurgeryError
from onnxprune.evaluation import session
from onnxprune.graph import Graph
from onnxprune.ops import Node, as_identity
from onnxprune.surgery.editor import Constants, copy_model

Array = npt.NDArray[Any]


def drop_branches(graph: Graph, empty: frozenset[str]) -> ModelProto:
    """Return the model of a graph as if some tensors had no channels.

    Raises: SurgeryError where no one can say what is left of it then.
    """
    remains = find_remains(graph, empty)
    if remains is None:
        raise SurgeryError("a branch cannot go as a whole after others went; report this")
    remains.held.update(_run(graph, remains))
    model = copy_model(graph)
    constants = Constants(graph, model)
    unread = {node.outputs for node in graph.nodes if not graph.read_outputs(node)}
    for node in remains.meets:
        _meet(graph, node, constants, remains)
    for node in reversed(graph.nodes):
        own = not node.nested and node.border is None and constants.has(node)
        if own and node.outputs not in unread and not constants.reads(node):
            constants.remove(node)
    constants.drop_unread()
    return model


def _run(graph: Graph, remains: Remains) -> dict[str, Array]:
    """The constants as onnxruntime computes them: ONNX's reference errs in old normalisations."""
    made = {node.outputs[0] for node in remains.computes}
    wanted = sorted(made.intersection(n for node in remains.meets for n in node.inputs))
    if not wanted:
        return {}
    given = {n: value for n, value in remains.held.items() if n not in made}
    read = {n for node in remains.computes for n in node.inputs if n in graph.constant_tensors}
    given |= {name: graph.constant(name) for name in read}
    outputs = [ValueInfoProto(name=n, type=graph.facts.types[n]) for n in wanted]
    for value in outputs:
        value.type.tensor_type.ClearField("shape")
    model = helper.make_model(
        helper.make_graph(
            [_named(node) for node in remains.computes],
            "branch",
            [],
            outputs,
            [numpy_helper.from_array(value, name) for name, value in given.items()],
        ),
        opset_imports=graph.model.opset_import,
        ir_version=graph.model.ir_version,
    )
    return dict(zip(wanted, session(model, device="cpu").run(wanted, {}), strict=True))


def _named(node: Node) -> NodeProto:
    """The node as it reads its inputs by the names that the analysis has for them."""
    proto = NodeProto()
    proto.CopyFrom(node.proto)
    del proto.input[:]
    proto.input.extend(node.inputs)
    return proto


def _meet(graph: Graph, node: Node, constants: Constants, remains: Remains) -> None:
    """Let a node read what is left; where that changes nothing, it hands the rest on."""
    proto, held = constants.proto(node), remains.held
    signals = [n for n in node.inputs if n and n not in held and n not in graph.constant_names]
    if len(set(signals)) == 1 and _is_identity(graph, node, signals[0], held):
        place = proto.input[node.inputs.index(signals[0])]
        proto.CopyFrom(as_identity(node, place).proto)
        return
    for index, name in enumerate(node.inputs):
        if name in held:
            proto.input[index] = constants.add(f"{name}_left", held[name]).name


def _is_identity(graph: Graph, node: Node, signal: str, held: dict[str, Array]) -> bool:
    """Say whether a node gives back its signal, whatever it is, beside constants."""
    others = [n for n in node.inputs if n and n != signal]
    beside = {n: held[n] if n in held else graph.constant(n) for n in others}
    shape = np.broadcast_shapes(*(value.shape for value in beside.values()))
    dtype = next(iter(held.values())).dtype
    probe = np.random.default_rng(0).normal(size=shape).astype(dtype)
    found = graph.facts.run(node, {signal: probe, **beside})[0]
    return bool(np.array_equal(found, probe))
