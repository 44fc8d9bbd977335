"""Mirror: a torch interpreter of a Graph, on CPU or CUDA.

One loop calls the forward of each node on its inputs and attributes. There are no modules, no
tracing and no canonizers: a residual sum is a node like any other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import dims, is_float, shared
from onnxprune.data import Head, Inputs, Streamed
from onnxprune.errors import InvalidModel, MissingPackage, out_of_memory
from onnxprune.evaluation import no_card
from onnxprune.graph import Graph
from onnxprune.ops import Border, Node, Op, quick_bytes, require_op
from onnxprune.ops._torch import torch

if TYPE_CHECKING:
    from torch import Tensor

    Feed = npt.NDArray[Any] | Tensor | Streamed | Inputs | Mapping[str, npt.NDArray[Any] | Tensor]
    """A batch of images, or every input by name."""

logger = logging.getLogger(__name__)

STATING = (("shape",), ("sizes",), ("output_shape",))
"""What inputs are called that say the shape of an output; axes may look like one."""
HUGE = 2**28
"""Bytes. A larger weight is not copied; nothing changes constants in place."""

Tensors = dict[str, "Tensor"]
"""Tensors by name."""


class Step(NamedTuple):
    """One node to run, and the operator that runs it."""

    node: Node
    op: Op


class Mirror:
    """The torch twin of a graph.

    `steps` are the nodes that the `outputs` depend on, in order; `constants` are the tensors that
    no input changes; `heads` say what the outputs hold. Floating-point tensors have the type
    `dtype`; all lie on `device`. `quick` names the nodes that `quickly` runs by `Op.quick`.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        device: str = "auto",
        dtype: torch.dtype | None = None,
        outputs: Sequence[str] | None = None,
        heads: Sequence[Head] = (),
    ) -> None:
        """Prepare the graph for torch: all of it, or what some tensors, or heads, depend on.

        Without heads the first output is class scores.

        Raises: UnsupportedOp naming the first node that torch cannot run.
        """
        self.graph = graph
        self.heads = tuple(heads) or (Head(graph.outputs[0]),)
        named = [head.tensor for head in heads] or graph.outputs
        self.outputs = tuple(named if outputs is None else outputs)
        self.device = torch.device(choose_device(device))
        self.dtype = dtype or torch.float32
        needed = [Step(node, require_op(node)) for node in _needed(graph, self.outputs)]
        self.constants: Tensors = {
            name: self._tensor(graph.constant(name))
            for name in (*(n for node, _ in needed for n in node.inputs), *self.outputs)
            if name in graph.initializers or name in graph.computed.makers
        }
        self.steps: list[Step] = []
        self.quick: frozenset[str] = frozenset()
        for step in needed:
            if step.node.inputs:
                self.steps.append(step)
            else:
                self.execute(step, self.constants)
        self._layout = choose_layout(self.constants.values(), self.device)
        self.constants = {name: self._laid_out(value) for name, value in self.constants.items()}

    def __call__(self, x: Feed) -> Tensor:
        """Return the first output for a batch of images. Shapes: x `[N, ...]` -> `[N, K]`."""
        return self.run(x)[self.outputs[0]]

    def run(self, x: Feed) -> Tensors:
        """Return the outputs, by name. Shapes: each as the graph says."""
        env = self.start(x)
        for step in self.walk(env):
            self.execute(step, env)
        return {name: self._value(name, env) for name in self.outputs}

    def walk(self, *envs: Tensors) -> Iterator[Step]:
        """Yield the steps in order; the caller executes each on all of `envs`.

        After each step, the tensors that no later step reads are freed. Outputs stay.
        Shapes: each tensor as the graph says.
        """
        kept = set(self.outputs)
        last = {name: node for node, _ in self.steps for name in node.inputs if name not in kept}
        for step in self.steps:
            yield step
            spent = [name for name in step.node.inputs if last.get(name) is step.node]
            for env in envs:
                for name in spent:
                    env.pop(name, None)

    def trace(self, x: Feed) -> Tensors:
        """Return every tensor of the graph, by name. Shapes: each as the graph says."""
        env = self.start(x)
        for step in self.steps:
            self.execute(step, env)
        return env

    def arguments(self, step: Step, env: Mapping[str, Any]) -> list[Any]:
        """Return the inputs of a node as its forward takes them."""
        node, op = step
        return [
            self._sizes(node, k, env) if op.takes_ints(k) else self._value(name, env)
            for k, name in enumerate(node.inputs)
        ]

    def execute(
        self, step: Step, env: Mapping[str, Any], into: dict[str, Any] | None = None
    ) -> None:
        """Run one node on tensors of `env` and put its outputs there, or into `into`.

        A node that fails in a branch that is not taken leaves its outputs out.
        Shapes: each tensor as the graph says.
        Raises: InvalidModel where torch refuses the inputs.
        """
        node, op = step
        target = env if into is None else into
        try:
            results = op(node, self.arguments(step, env))
        except (RuntimeError, IndexError, TypeError, AttributeError, MemoryError) as error:
            if (exhausted := out_of_memory(f"{node}", error)) is not None:
                raise exhausted from error
            if not self._is_taken(node, env):
                return
            shapes = [dims(getattr(env.get(n), "shape", None)) for n in node.inputs if n in env]
            raise InvalidModel(
                f"{node}: torch cannot run it on inputs of shape {', '.join(shapes)}: "
                f"{str(error).splitlines()[0]}"
            ) from error
        for name, value in zip(node.outputs, results, strict=False):
            if name and value is not None:
                target[name] = self._tensor(value)  # type: ignore[index]

    def quickly(self, step: Step, *, only_back: bool = False) -> Step:
        """Return the step by its operator's quick forward, if the node is one of `quick`.

        Where `only_back` the forward is exact, and the way back is quick.
        """
        if step.node.name not in self.quick:
            return step
        return Step(step.node, step.op.quickly_back if only_back else step.op.quickly)

    def _is_taken(self, node: Node, env: Mapping[str, Any]) -> bool:
        """Say whether all branches that hold a node are taken."""
        for held in node.within:
            condition = self._value(self._conditions.get(held.by, ""), env)
            if condition is not None and bool(condition.all()) != (held.number == 0):
                return False
        return True

    @cached_property
    def _conditions(self) -> dict[str, str]:
        """What decides between the branches of each opened If, by its first output."""
        choices = [node for node in self.graph.nodes if node.border is Border.CHOICE]
        return {node.outputs[0]: node.inputs[0] for node in choices}

    def _value(self, name: str, env: Mapping[str, Any]) -> Any:
        if not name:
            return None
        return self.constants.get(name) if env.get(name) is None else env[name]

    def _sizes(self, node: Node, k: int, env: Mapping[str, Any]) -> tuple[int, ...] | None:
        """Return the k-th input as integers; a batch size that a shape names is that of `env`."""
        ints = self._ints(node.inputs[k], env)
        if ints is None or (node.outputs[0], k) not in self._naming_batch:
            return ints
        return (len(self._value(node.inputs[0], env)), *ints[1:])

    @cached_property
    def _naming_batch(self) -> set[tuple[str, int]]:
        """Where a constant gives a node's output its shape, and with it the model's fixed batch.

        Exporters write the batch that they traced into the shapes of their reshapes. That of the
        node's input is the same, and any other as well.
        """
        inputs = [self.graph.shape(name) for name in self.graph.inputs[:1]]
        batch = inputs[0][:1] if inputs and inputs[0] else ()
        return {
            (node.outputs[0], k)
            for node, op in self.steps
            for k, name in enumerate(node.inputs)
            if op.inputs[k : k + 1] in STATING and name in self.graph.constant_tensors
            if self._starts_with(node.inputs[0], batch)
            and self._starts_with(node.outputs[0], batch)
            if _states(self._ints(name, {}), self.graph.shape(node.outputs[0]))
        }

    def _starts_with(self, name: str, batch: tuple[int, ...]) -> bool:
        return bool(batch) and (self.graph.shape(name) or ())[:1] == batch

    def _ints(self, name: str, env: Mapping[str, Any]) -> tuple[int, ...] | None:
        if not name:
            return None
        if name in self.graph.constant_tensors:
            return tuple(int(v) for v in np.ravel(self.graph.constant(name)))
        return tuple(int(v) for v in torch.ravel(self._value(name, env)).tolist())

    def start(self, x: Feed) -> Tensors:
        """Return the inputs as tensors of the mirror's device and type, by name.

        Shapes: x `[N, ...]`, or each input as the graph says.
        Raises: InvalidModel for an input without a value.
        """
        x = x.feeds if isinstance(x, Inputs) else np.asarray(x) if isinstance(x, Streamed) else x
        feeds = x if isinstance(x, Mapping) else {self.graph.image: x}
        env = {name: self._laid_out(value) for name, value in feeds.items()}
        read = {*self.outputs, *(name for node, _ in self.steps for name in node.inputs)}
        missing = [name for name in self.graph.inputs if name in read and name not in env]
        if missing:
            raise InvalidModel(f"input '{missing[0]}': no value given; expected all inputs")
        return env

    def _laid_out(self, value: npt.NDArray[Any] | Tensor) -> Tensor:
        tensor = self._tensor(value)
        return tensor.contiguous(memory_format=self._layout) if tensor.ndim == 4 else tensor

    def _tensor(self, value: npt.NDArray[Any] | Tensor) -> Tensor:
        if isinstance(value, np.ndarray) or np.isscalar(value):
            array = np.asarray(value)
            if is_float(array) and array.dtype not in (np.float32, np.float64, np.float16):
                array = array.astype(np.float32)
            value = torch.from_numpy(shared(array) if array.nbytes >= HUGE else np.array(array))
        dtype = self.dtype if value.is_floating_point() else value.dtype
        return value.to(device=self.device, dtype=dtype)


def choose_layout(constants: Iterable[Tensor], device: torch.device) -> torch.memory_format:
    """Return how images lie in memory: on a CPU channels last where that suits most kernels.

    A convolution of 1 x 1 is a product of matrices, which is several times faster with channels
    last, and a quick one is such products. Other kernels gain nothing and have to be reordered.
    """
    kernels = [c for c in constants if c.ndim == 4 and c.shape[0] > 1]
    suited = sum(tuple(c.shape[2:]) == (1, 1) or quick_bytes(c) > 0 for c in kernels)
    last = device.type == "cpu" and suited > len(kernels) / 2
    return torch.channels_last if last else torch.contiguous_format


def choose_device(device: str) -> str:
    """Return `cuda` or `cpu` for `auto`, or what was asked for; TensorRT is for onnxruntime only.

    Raises: MissingPackage when CUDA is asked for and torch has none, naming what is missing.
    """
    available = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if available else "cpu"
    if device == "cpu" or available:
        return "cuda" if device == "tensorrt" else device
    missing = (
        'this torch is built without CUDA; pip install "onnxprune[gpu]"'
        if torch.version.cuda is None
        else no_card() or "torch finds no CUDA device; see CUDA_VISIBLE_DEVICES"
    )
    raise MissingPackage(f"device '{device}': {missing}, or use --device cpu")


def _states(sizes: tuple[int, ...] | None, shape: tuple[int, ...] | None) -> bool:
    """Say whether a reshape to `sizes` gives `shape`, and names its first; -1 and 0 are any."""
    if not sizes or shape is None or len(sizes) != len(shape) or sizes[0] != shape[0]:
        return False
    return all(size in (0, -1, n) for size, n in zip(sizes, shape, strict=True))


def _needed(graph: Graph, outputs: Iterable[str]) -> Iterator[Node]:
    """The nodes that the outputs depend on, in order."""
    wanted = set(outputs)
    chosen = []
    for node in reversed(graph.nodes):
        if node.name in graph.computed.inside:
            continue
        if wanted.intersection(node.outputs):
            chosen.append(node)
            wanted.update((*node.inputs, *node.captures))
    return reversed(chosen)
