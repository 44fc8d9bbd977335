"""Closed-form correction of the layers that read removed channels: no gradient, nothing trained.

A layer computes `y = W x + b` of input channels x, of which the pruned net still has `x_k`. The
removed ones are not independent of those that stay, and the reference samples say how they hang
together. Two corrections, neither of which changes a shape:

`bias`: each removed channel is replaced by its mean over the samples, which only moves `b`.

`least-squares`: all channels are predicted from the kept ones by one small linear map A per layer
(`onnxprune.least_squares`), and the layer reads the prediction: `W x ~ (W A) x_k`. The layers are
taken from front to back: x is what a layer read in the unpruned net, `x_k` what the pruned net
really produces there, its layers before already corrected. `W A` replaces W at every kernel
position, and b moves so that the mean output of every filter is that of the unpruned net. One map
per layer, of channels only, is what makes few samples enough: a map per kernel position would have
nine times the unknowns. A product with a flattened map is the same, a channel being all the rows
that it was flattened to.

A product without a bias input (MatMul) gets no bias: its regression is not centred, and the `bias`
method leaves it as it is. So does everything `onnxprune.readers` leaves out.

Source: He et al. 2017 (channel pruning) and Luo et al. 2017 (ThiNet) reconstruct the output of the
next layer from the kept channels; here it is its input, once per layer. Measured: docs/method.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from onnxprune.batches import batches_of
from onnxprune.channels import BoolArray, ChannelGroups
from onnxprune.constants import Constants, copy_model
from onnxprune.errors import DataError, UnknownName
from onnxprune.graph import Graph
from onnxprune.labels import IntArray
from onnxprune.least_squares import FOLDS, MAX_ROWS, choose_ridge, multiply
from onnxprune.mirror import Mirror, Trace
from onnxprune.ops._torch import torch
from onnxprune.readers import WIDE, Reader, find_readers

if TYPE_CHECKING:
    from torch import Tensor

    from onnxprune.data import Data

logger = logging.getLogger(__name__)

METHODS = ("none", "bias", "least-squares")

HELD_BYTES = 512 * 2**20
"""How much of the unpruned net's activations is kept from one compensation to the next."""
LIVE_BYTES = 2 * 2**30
"""How much the pruned net's activations may take, all samples at once."""

Compensate = Callable[[ModelProto, BoolArray], ModelProto]


def compensator(
    graph: Graph,
    groups: ChannelGroups,
    data: Data | None,
    method: str,
    *,
    device: str = "auto",
    batch_size: int = 32,
    ridge: float | None = None,
) -> Compensate | None:
    """Return `compensate(pruned, dead) -> corrected`, or None for the method `none`.

    `pruned` is what `prune(graph, groups, dead)` returned; it is not changed. Names, shapes and all
    that reads no removed channel stay as they are; a node without a bias gets one where it needs
    it. The unpruned net runs once, at the first call. `ridge` is a share of the mean variance; None
    chooses one for each layer.
    Raises: UnknownName for a method that does not exist; DataError where samples are missing.
    """
    if method not in METHODS:
        raise UnknownName(f"compensate '{method}': unknown; expected one of {', '.join(METHODS)}")
    if method == "none":
        return None
    if data is None:
        raise DataError(
            f"compensate '{method}': needs reference samples; give --data, or use --compensate none"
        )
    source = _Source(graph, groups, data, device, batch_size)
    return _Bias(source) if method == "bias" else _LeastSquares(source, ridge)


@dataclass(frozen=True)
class _Source:
    """The unpruned net and the samples it is compared on."""

    graph: Graph
    groups: ChannelGroups
    data: Data
    device: str
    batch_size: int

    @cached_property
    def readers(self) -> tuple[Reader, ...]:
        return find_readers(self.graph, self.groups)

    def losing(self, dead: BoolArray) -> Iterator[tuple[Reader, BoolArray, BoolArray]]:
        """Yield the readers that lose channels, with the positions that they read and write."""
        for reader in self.readers:
            read, written = reader.kept(self.graph, self.groups, dead)
            if not read.all():
                yield reader, read, written

    def mirror(self, model: ModelProto | None = None) -> Mirror:
        """Return the mirror of the unpruned net, or of what became of it."""
        graph = self.graph
        if model is not None:
            graph = Graph(model, input_shapes=graph.input_shapes)
        return Mirror(graph, device=self.device)

    def watch(
        self, mirror: Mirror, x: npt.NDArray[Any], note: Callable[[Reader, Tensor, Tensor], None]
    ) -> int:
        """Run one batch, noting each reader's input and output; return the most bytes alive."""
        readers = {reader.key: reader for reader in self.readers}
        env, most = mirror.start({mirror.graph.image: x}), 0
        for step, spent in mirror.schedule():
            mirror.execute(step, env)
            most = max(most, sum(tensor.nbytes for tensor in env.values()))
            reader = readers.get(step[0].outputs[0])
            if reader is not None:
                note(reader, env[step[0].inputs[0]], env[reader.key])
            _free(env, spent)
        return most

    def batches(
        self, mirror: Mirror, chosen: slice = slice(None), size: int | None = None
    ) -> list[npt.NDArray[Any]]:
        """Return the chosen samples in batches that the model takes."""
        data = replace(self.data, x=self.data.x[chosen], y=self.data.y[chosen])
        return [x for x, _ in batches_of(mirror, data, size or self.batch_size)]


class _Bias:
    """Replaces removed channels by their means: a constant input gives a constant output."""

    def __init__(self, source: _Source) -> None:
        self._source = source

    def __call__(self, model: ModelProto, dead: BoolArray) -> ModelProto:
        writer = _Writer(Graph(model))
        for reader, read, written in self._source.losing(dead):
            mean = self._means.get(reader.key)
            if reader.bias is None or mean is None:
                continue
            gone = torch.from_numpy(~read).to(mean.device)
            place = [-1 if axis == reader.given else 1 for axis in range(mean.ndim)]
            weight = torch.from_numpy(self._source.graph.constant(reader.weight).copy())
            shift = reader.op(reader.node, [mean * gone.reshape(place), weight.to(mean)])[0]
            writer.shift(reader, reader.mean(shift)[torch.from_numpy(written)])
        return writer.model

    @cached_property
    def _means(self) -> dict[str, Tensor]:
        """Each reader's input, averaged over the samples but not over positions."""
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}

        def note(reader: Reader, given: Tensor, _: Tensor) -> None:
            total = given.sum(0, keepdim=True, dtype=torch.float64)
            sums[reader.key] = sums.get(reader.key, 0) + total
            counts[reader.key] = counts.get(reader.key, 0) + len(given)

        with torch.no_grad():
            mirror = self._source.mirror()
            for x in self._source.batches(mirror):
                self._source.watch(mirror, x, note)
        return {key: (total / counts[key]).to(mirror.dtype) for key, total in sums.items()}


@dataclass(frozen=True)
class _Observed:
    """What the unpruned net does on batches of samples: per reader, its inputs and mean output.

    Shapes: rows each `[C, M]`, one for each batch; means `[o]`.
    """

    batches: Sequence[npt.NDArray[Any]]
    wide: int
    rows: Mapping[str, Sequence[Tensor]]
    means: Mapping[str, Tensor]


class _LeastSquares:
    """Re-fits, from the front to the back of the pruned net, the layers that lost inputs."""

    def __init__(self, source: _Source, ridge: float | None) -> None:
        self._source = source
        self._ridge = ridge

    def __call__(self, model: ModelProto, dead: BoolArray) -> ModelProto:
        losing = {one[0].key: one for one in self._source.losing(dead)}
        if not losing:
            return model
        with torch.no_grad():
            mirror = self._source.mirror(model)
            writer = _Writer(mirror.graph)
            image = mirror.graph.image
            envs = [mirror.start({image: x}) for x in self._observed.batches]
            for step, spent in mirror.schedule():
                one = losing.pop(step[0].outputs[0], None)
                if one is not None:
                    self._refit(mirror, envs, one, writer)
                for env in envs:
                    mirror.execute(step, env)
                if one is not None and one[0].bias is not None:
                    writer.shift(one[0], self._restore_mean(envs, one))
                for env in envs:
                    _free(env, spent)
                if not losing:
                    break
        return writer.model

    def _refit(
        self,
        mirror: Mirror,
        envs: Sequence[Trace],
        one: tuple[Reader, BoolArray, BoolArray],
        writer: _Writer,
    ) -> None:
        """Give a reader the weights that read the kept channels as it read all of them."""
        reader, read, written = one
        rows = self._observed.rows[reader.key]
        if len(rows[0]) > MAX_ROWS:
            return
        given = [env[reader.node.inputs[0]] for env in envs]
        products = multiply(
            rows,
            [reader.rows(x, read, wide=self._observed.wide) for x in given],
            reader.channels(read),
            list(self._folds(reader, [len(x) for x in given], [r.shape[1] for r in rows])),
            centre=reader.bias is not None,
        )
        weight = np.compress(written, self._source.graph.constant(reader.weight), reader.written)
        held = torch.from_numpy(weight).to(products.gram.device)
        ridge = self._ridge
        if ridge is None:
            ridge = choose_ridge(products, reader.by_channel(held))
        channel_map = products.solve(ridge)
        changed = reader.remap(held, channel_map.to(held.dtype), read).contiguous()
        mirror.constants[reader.weight] = changed.to(mirror.dtype)
        writer.constants.set(reader.weight, changed.cpu().numpy())

    def _folds(
        self, reader: Reader, counts: Sequence[int], widths: Sequence[int]
    ) -> Iterator[IntArray]:
        """Yield the fold of every column of each batch: that of its sample."""
        folds, first = min(FOLDS, sum(counts)) if self._ridge is None else 1, 0
        for count, width in zip(counts, widths, strict=True):
            yield (first + reader.columns(count, width)) % folds
            first += count

    def _restore_mean(
        self, envs: Sequence[Trace], one: tuple[Reader, BoolArray, BoolArray]
    ) -> Tensor:
        """Move a reader's outputs to the unpruned means; return by how much. Shapes: `[o]`."""
        reader, _, written = one
        outputs = [env[reader.key] for env in envs]
        sizes = [len(y) for y in outputs]
        mean = sum(len(y) * reader.mean(y) for y in outputs) / sum(sizes)
        shift: Tensor = self._observed.means[reader.key][torch.from_numpy(written)] - mean
        for env, y in zip(envs, outputs, strict=True):
            place = [-1 if axis == reader.made else 1 for axis in range(y.ndim)]
            env[reader.key] = y + shift.to(y.dtype).reshape(place)
        return shift

    @cached_property
    def _observed(self) -> _Observed:
        source = self._source
        rows: dict[str, list[Tensor]] = {}
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        with torch.no_grad():
            mirror = source.mirror()
            every, wide = self._affordable(mirror)
            batches = source.batches(mirror, slice(None, None, every))

            def note(reader: Reader, given: Tensor, made: Tensor) -> None:
                rows.setdefault(reader.key, []).append(reader.rows(given, wide=wide))
                sums[reader.key] = sums.get(reader.key, 0) + len(made) * reader.mean(made)
                counts[reader.key] = counts.get(reader.key, 0) + len(made)

            for batch in batches:
                source.watch(mirror, batch, note)
        means = {key: total / counts[key] for key, total in sums.items()}
        return _Observed(batches, wide, rows, means)

    def _affordable(self, mirror: Mirror) -> tuple[int, int]:
        """Return the stride over samples and the width of maps that memory allows.

        Positions are given up first.
        """
        source, held = self._source, dict.fromkeys((WIDE, WIDE // 2, WIDE // 4), 0)

        def note(reader: Reader, given: Tensor, _: Tensor) -> None:
            for wide in held:
                held[wide] += reader.rows(given, wide=wide).nbytes

        (probe,) = source.batches(mirror, slice(1), 1)
        live = source.watch(mirror, probe, note)
        count = -(-len(source.data) // len(probe))
        wide = next((w for w in held if held[w] * count <= HELD_BYTES), min(held))
        fit = min(HELD_BYTES // max(held[wide], 1), LIVE_BYTES // max(live, 1))
        every = -(-count // max(fit, 1))
        if every > 1:
            logger.info("least squares on one sample in %d, to save memory", every)
        return every, wide


class _Writer:
    """A copy of a pruned model whose weights and biases can be set."""

    def __init__(self, graph: Graph) -> None:
        self.model = copy_model(graph)
        self.constants = Constants(graph, self.model)

    def shift(self, reader: Reader, shift: Tensor) -> None:
        """Move a node's bias; one that others read too is left to them. Shapes: `[o]`."""
        proto = self.constants.proto(reader.node)
        index = reader.bias
        assert index is not None
        added = shift.cpu().numpy() / reader.bias_scale
        name = proto.input[index] if index < len(proto.input) else ""
        bias = self.constants.array(name) if name else np.zeros(1, self._dtype(reader))
        moved = (bias + added).astype(bias.dtype)
        if name and moved.shape == bias.shape and not self.constants.is_shared(name):
            self.constants.set(name, moved)
            return
        own = self.constants.add(f"{reader.node.name}_bias", moved)
        proto.input.extend([""] * (index + 1 - len(proto.input)))
        proto.input[index] = own.name

    def _dtype(self, reader: Reader) -> np.dtype[Any]:
        return self.constants.array(reader.weight).dtype


def _free(env: Trace, names: Sequence[str]) -> None:
    for name in names:
        env.pop(name, None)
