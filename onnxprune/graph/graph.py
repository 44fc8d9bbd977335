"""Graph: a read-only view of a ModelProto, with what is known of its tensors at batch 1.

The model itself is never changed. Surgery edits a copy of the protobuf, so everything that the user
did not ask to change survives: names, opset, IR version, metadata, functions, unknown domains.
"""

from __future__ import annotations

import logging
import math
from functools import cached_property, partial
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

from onnxprune.checks import Object
from onnxprune.engine import Portable
from onnxprune.errors import InvalidModel
from onnxprune.graph.constant_folding import Computed, find_computed
from onnxprune.graph.copies import copied
from onnxprune.graph.dependence import Variation
from onnxprune.graph.facts import Facts, start_facts
from onnxprune.graph.inputs import (
    InputShapes,
    Shape,
    assumption,
    check_shapes,
    declared_shape,
    unread_inputs,
)
from onnxprune.graph.large_weights import NONE_APART, Weights
from onnxprune.graph.naming import naming_file
from onnxprune.graph.nodes import alias_vectors, inlined_nodes
from onnxprune.graph.opened import prepare_branches
from onnxprune.graph.order import is_sorted, sort_nodes
from onnxprune.graph.soundness import check_sound
from onnxprune.graph.storage import (
    ModelSource,
    check_proto,
    fill,
    is_large,
    load_apart,
    read_tensor,
)
from onnxprune.graph.validity import check_model
from onnxprune.ops import Fills, Holds, How, Node, Site

logger = logging.getLogger(__name__)


STEPS = (32, 64, 128)
"""Positions by which open heights and widths are also looked at."""


class Graph(Portable):
    """A model's main graph: nodes in topological order, constants, shapes and known values.

    Calls of model-local functions are replaced by the nodes of their bodies, which are `nested`:
    all calls share them, so they cannot be changed. `aliases` are names under which nodes read
    vectors that other nodes read as well. Shapes are at batch 1; an open height or width is as
    given, or assumed (`assumption`). `facts.values[t]` are small tensors known without a run.
    """

    def __init__(
        self,
        model: ModelProto,
        *,
        input_shapes: InputShapes | None = None,
        weights: Weights = NONE_APART,
    ) -> None:
        """View `model`, which is not changed and must not be changed while the view is used.

        `weights` are the values of those initializers that `model` holds without.
        Raises: InvalidModel when the model is not valid ONNX; InvalidType when it is none.
        """
        check_proto(model)
        check_sound(model, apart=weights.keys())
        if not is_sorted(model):
            model = sort_nodes(copied(model))
        model = prepare_branches(model)
        self.bare, self.weights = model, weights
        self.proto: GraphProto = model.graph
        check_model(model)
        self.opsets = {entry.domain: entry.version for entry in model.opset_import}
        self.initializers = {tensor.name: tensor for tensor in self.proto.initializer}
        self.nodes, self.aliases = alias_vectors(
            inlined_nodes(model, self.opsets), self.initializers
        )
        self.initializers |= {a: self.initializers[name] for a, name in self.aliases.items()}
        self.unread = unread_inputs(self.proto)
        left_out = self.initializers.keys() | self.unread
        self.inputs = tuple(i.name for i in self.proto.input if i.name not in left_out)
        self.outputs = tuple(o.name for o in self.proto.output)
        self.input_shapes = check_shapes(self.proto, input_shapes)
        self.facts = self._infer()
        self._hows: dict[str, How | None] = {}
        self._arrays: dict[str, npt.NDArray[Any]] = {}
        self._lent = WeakValueDictionary[str, npt.NDArray[Any]]()

    def __reduce__(self) -> tuple[Any, ...]:
        shapes, weights = dict(self.input_shapes), dict(self.weights)
        make = partial(Graph, input_shapes=shapes, weights=weights)
        return make, (self.bare,)

    @classmethod
    def load(cls, source: ModelSource, *, input_shapes: InputShapes | None = None) -> Graph:
        """Read a model from a file, or view one in memory.

        Raises: InvalidModel when there is no such file or it is not a valid ONNX model.
        """
        with naming_file(source):
            model, weights = load_apart(source)
            return cls(model, input_shapes=input_shapes, weights=weights)

    @cached_property
    def model(self) -> ModelProto:
        """The model with all its weights."""
        if not self.weights:
            return self.bare
        return fill(copied(self.bare), self.weights)

    @cached_property
    def constant_tensors(self) -> dict[str, TensorProto]:
        """Initializers, and the constants that nodes hold, fill or compute, by tensor name.

        A constant that is filled or computed has a shape and a type here, and its values in
        `constant`.
        """
        found = dict(self.initializers)
        for node in self.nodes:
            value = node.attributes.get("value")
            if node.op is None or node.nested:
                continue
            if isinstance(node.op.how, Holds) and isinstance(value, TensorProto):
                found[node.outputs[0]] = value
            elif isinstance(node.op.how, Fills) and self._is_static(node):
                found[node.outputs[0]] = self._without_values(node.outputs[0])
        return found | {name: self._without_values(name) for name in self.computed.makers}

    def _without_values(self, name: str) -> TensorProto:
        element = self.facts.types[name].tensor_type.elem_type
        return TensorProto(dims=self.shape(name), data_type=element)

    @cached_property
    def constant_names(self) -> frozenset[str]:
        """Names of the constants, and of all that nodes compute from constants alone."""
        found = set(self.initializers)
        for node in self.nodes:
            read = {*node.inputs, *node.captures} - {""}
            held = node.op is not None and isinstance(node.op.how, Holds) and not node.nested
            if held or (read and found >= read and (node.op is not None or node.border is None)):
                found.update(node.outputs)
        return frozenset(found)

    @cached_property
    def computed(self) -> Computed:
        """Weights that the model computes from constants, in ways that labels cannot follow."""
        returned = {name for node in self.nodes if node.border for name in node.inputs}
        returned.update(self.outputs)
        return find_computed(self.nodes, self.facts, self.initializers, returned, self.how)

    def _is_static(self, node: Node) -> bool:
        """Say whether the shape that a node fills is written in the model."""
        known = self.shape(node.outputs[0]) is not None
        return known and self.facts.counts.get(node.inputs[0]) == frozenset()

    def constant(self, name: str) -> npt.NDArray[Any]:
        """Return a constant's array; a KeyError is a mistake of the caller.

        Shapes: `shape(name)`.
        Raises: InvalidModel when it holds fewer or more values than its shape says.
        """
        tensor, node = self.constant_tensors[name], self.producers.get(name)
        apart = self.weights.get(self.aliases.get(name, name))
        if apart is not None:
            return apart.array()
        known = self._arrays.get(name, self._lent.get(name))
        if known is not None:
            return known
        if name in self.computed.makers:
            found = self.computed.evaluate(name, self.opsets, self.constant)
        elif node is not None and node.op is not None and isinstance(node.op.how, Fills):
            found = np.broadcast_to(_fill(node.attributes.get("value")), tuple(tensor.dims))
        else:
            found = read_tensor(tensor)
        if name in self.computed.makers or not is_large(tensor):
            self._arrays[name] = found
        else:  # a message copies what it gives: so all who hold it hold the same
            self._lent[name] = found
        return found

    def how(self, node: Node) -> How | None:
        """Return how channels cross a node, or None where its operator is not described."""
        if node.name not in self._hows:
            found = None if node.op is None else node.op.channels(self.site(node))
            self._hows[node.name] = found
        return self._hows[node.name]

    def filter_axis(self, node: Node, *, dense: bool = False) -> int | None:
        """Return the axis of its output along which a node's filters lie, None without any.

        With `dense` the units of a dense layer are filters, too.
        """
        axis = None if node.op is None else node.op.filter_axis(self.site(node), dense=dense)
        made = None if axis is None else self.shape(node.outputs[0])
        return None if axis is None or (made is not None and axis >= len(made)) else axis

    def is_dense(self, node: Node) -> bool:
        """Say whether a node is a dense layer, whose units are no filters."""
        return node.op is not None and node.op.is_dense(self.site(node))

    def site(self, node: Node) -> Site:
        """Return what an operator is told of a node."""
        return Site(
            node,
            [self.shape(name) if name else None for name in node.inputs],
            [self.facts.values.get(name) for name in node.inputs],
            [self.shape(name) if name else None for name in node.outputs],
            [name in self.constant_names for name in node.inputs],
            dynamic=self.dynamic,
            open=self.open_elements,
        )

    def shape(self, name: str) -> Shape | None:
        """Return a tensor's shape at batch 1, or None where it is not known."""
        return self.facts.shape(name)

    @cached_property
    def largest(self) -> int:
        """Elements of the largest tensor whose shape is known, at batch 1."""
        return max((math.prod(self.shape(name) or ()) for name in self.facts.types), default=0)

    @cached_property
    def consumers(self) -> dict[str, list[Node]]:
        """The nodes that read each tensor, in order; a subgraph's reads count."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys((*node.inputs, *node.captures)):
                found.setdefault(name, []).append(node)
        return found

    def read_outputs(self, node: Node) -> list[str]:
        """Return the outputs of a node that another node reads or the graph returns."""
        return [name for name in node.outputs if name in self._read]

    @cached_property
    def _read(self) -> set[str]:
        return {*self.consumers, *self.outputs}

    @cached_property
    def producers(self) -> dict[str, Node]:
        """The node that writes each tensor."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    @cached_property
    def image(self) -> str:
        """The name of the one input that takes images.

        Raises: InvalidModel when the model has none or several inputs.
        """
        if len(self.inputs) != 1:
            raise InvalidModel(
                f"graph '{self.proto.name}': has {len(self.inputs)} inputs "
                f"({', '.join(self.inputs)}); expected one image input; only inspect, apply and "
                f"the data-free criteria work on this model"
            )
        return str(self.inputs[0])

    @cached_property
    def image_form(self) -> tuple[tuple[int | None, ...], np.dtype[Any]]:
        """The shape of one image (None where nobody says a size) and its element type."""
        value = next(value for value in self.proto.input if value.name == self.image)
        sizes = self.input_shapes.get(self.image) or declared_shape(value) or ()
        return sizes[1:], onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)

    @cached_property
    def input_forms(self) -> dict[str, tuple[tuple[int | None, ...], np.dtype[Any]]]:
        """The shape of each input, None where nobody says a size, and its element type.

        The batch axis of an input whose size is given is left open all the same.
        """
        forms = {}
        for value in self.proto.input:
            if value.name not in self.inputs:
                continue
            declared = declared_shape(value) or ()
            sizes = self.input_shapes.get(value.name, declared)
            if declared and declared[0] is None:
                sizes = (None, *sizes[1:])
            dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            forms[value.name] = tuple(sizes), dtype
        return forms

    def dynamic(self, name: str) -> tuple[bool, ...]:
        """Say for each axis of a tensor whether the model leaves its size open."""
        here = self.facts.shape(name)
        there = self.elsewhere.shape(name) or self._other_batch.shape(name)
        if here is None or there is None or len(here) != len(there):
            return ()
        return tuple(a != b for a, b in zip(here, there, strict=True))

    @property
    def assumption(self) -> str:
        """Which sizes are assumed for axes that the model leaves open, and what to do about it."""
        return assumption(self.proto, self.input_shapes)

    def warn(self) -> None:
        """Log what is assumed, where something is: for whoever shows what comes of it."""
        if self.assumption:
            logger.warning("%s", self.assumption)

    def open_elements(self, name: str) -> npt.NDArray[np.bool_]:
        """Say of each element of a known value whether it follows an axis that is left open.

        Shapes: `shape(name)`.
        """
        if not self.facts.counts.get(name):
            return np.zeros(self.facts.values[name].shape, np.bool_)
        return self._opened.differs(name)

    @cached_property
    def _opened(self) -> Variation:
        """Known values where open axes are of other lengths: odd ones, others for each tensor."""
        numbers: dict[str, int] = {}

        def lengths(name: str) -> dict[int, int]:
            more = numbers.setdefault(name, 1 + 2 * len(numbers))
            shape = self.facts.shape(name) or ()
            is_open = zip(shape, self.dynamic(name), strict=False)
            return {k: 3 * n + more for k, (n, moves) in enumerate(is_open) if moves}

        variation = Variation(self.facts, lengths)
        for node in self.nodes:
            variation.follow(node)
        return variation

    @cached_property
    def elsewhere(self) -> Facts:
        """What is known of the tensors at batch 2, with other sizes for open heights and widths.

        Of these are taken the first that no node refuses: many networks take sizes in steps only.
        """
        found = (self._infer(batch=2, more=more) for more in STEPS)
        fits = (facts for facts in found if facts.refused.keys() <= self.facts.refused.keys())
        return next(fits, None) or self._infer(batch=2, more=STEPS[0])

    @cached_property
    def _other_batch(self) -> Facts:
        """The same at heights and widths as they are, for networks that take no others."""
        return self._infer(batch=2)

    def _infer(self, *, batch: int = 1, more: int = 0) -> Facts:
        unsteady: frozenset[str] = frozenset()
        while True:
            facts = start_facts(
                self.bare, self.input_shapes, batch=batch, more=more, unsteady=unsteady
            )
            for alias in self.aliases:
                facts.set_constant(alias, self.initializers[alias])
            for node in self.nodes:
                facts.follow(node)
            if facts.changing <= unsteady:
                return facts
            unsteady |= facts.changing


GRAPH = Object(kind=Graph, how="as Graph.load returns it")
"""The rule of an argument that is a view of a model, not the model."""


def _fill(value: TensorProto | None) -> npt.NDArray[Any]:
    return np.zeros((), np.float32) if value is None else numpy_helper.to_array(value).reshape(())
