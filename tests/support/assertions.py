"""One assertion for a whole graph: who goes with whom, and that pruning is exact.

`check(text, a="abcd", b="efgh", c="abcd")` says that the filters of convolutions `a` and `c` go
together, one by one, and those of `b` on their own. Equal letters are one channel, CAPITALS stay.
A convolution that is not mentioned must stay as a whole, for the reason that it is an output.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import ModelProto, TypeProto

from onnxprune.arrays import BoolArray
from onnxprune.channels.groups import ChannelGroups, find_groups
from onnxprune.graph.graph import Graph
from onnxprune.search.limits import Limits
from onnxprune.search.picker import Picker
from onnxprune.surgery.masking import mask
from onnxprune.surgery.removal import remove_channels
from tests.support.models import HEADER, model

Array = npt.NDArray[Any]

EXACT = 1e-5
"""Relative to the largest output; sums over fewer channels are ordered differently."""

SHARES = (0.25, 0.5, 1.0)
"""Of the removable channels, for one random plan each; every axis keeps one."""


def check(
    text: str | ModelProto,
    *,
    why: str = "",
    header: str = HEADER,
    sizes: Sequence[int] = (8,),
    exact: float = EXACT,
    **filters: str,
) -> None:
    """Assert the channels of a graph, then that pruned is masked at batch 1 and 3.

    `why` is part of the reason of a filter in CAPITALS; `sizes` replace a dynamic height and width.
    """
    proto = model(text, header=header) if isinstance(text, str) else text
    graph = Graph(proto)
    groups = find_groups(graph)
    check_channels(groups, filters, why)
    for seed, share in enumerate(SHARES):
        dead = some(groups, share, seed)
        if dead.any():
            check_pruned(graph, groups, dead, sizes, exact)


def check_channels(groups: ChannelGroups, filters: dict[str, str], why: str) -> None:
    """Assert which filters are one channel and which may go."""
    found = {f.node: f.channels for f in groups.filters}
    assert set(filters) <= set(found)
    mentioned = [channel for node in filters for channel in found[node].tolist()]
    assert _numbers(mentioned) == _numbers("".join(filters.values())), _letters(groups)
    for node, channels in found.items():
        expected = [letter.islower() for letter in filters.get(node, "")] or [False] * channels.size
        reasons = [groups.reasons.get(channel) for channel in channels.tolist()]
        assert [reason is None for reason in reasons] == expected, (node, reasons)
        if node not in filters:
            assert all("is the graph output" in str(reason) for reason in reasons), (node, reasons)
    stay = [str(groups.reasons.get(channel, "")) for channel in mentioned]
    assert not why or any(why in reason for reason in stay), stay


def check_pruned(
    graph: Graph,
    groups: ChannelGroups,
    dead: BoolArray,
    sizes: Sequence[int] = (8,),
    exact: float = EXACT,
) -> None:
    """Assert that the pruned model is valid and computes what the masked one does."""
    pruned, masked = remove_channels(graph, groups, dead), mask(graph, groups, dead)
    onnx.checker.check_model(pruned, full_check=True)
    small, zeroed = _session(pruned), _session(masked)
    for feeds in _feeds(graph.model, sizes):
        outputs = zip(small.run(None, feeds), zeroed.run(None, feeds), strict=True)
        for found, expected in outputs:
            assert found.shape == expected.shape
            scale = max(float(np.abs(expected).max(initial=0)), 1e-6)
            error = float(np.abs(found - expected).max(initial=0)) / scale
            assert error < exact, error


def some(groups: ChannelGroups, share: float, seed: int) -> BoolArray:
    """A random share of the removable channels, as far as no axis is emptied."""
    order = np.random.default_rng(seed).permutation(len(groups))
    order = order[groups.removable[order]]
    dead = np.zeros(len(groups), np.bool_)
    picked = Picker(groups, Limits()).pick(order, dead)
    dead[picked[: max(round(share * len(order)), 1)]] = True
    return dead


def _numbers(names: Sequence[Any]) -> list[int]:
    """Each name's place of first appearance; capitals and small letters are one name."""
    order: dict[Any, int] = {}
    return [order.setdefault(n.lower() if isinstance(n, str) else n, len(order)) for n in names]


def _letters(groups: ChannelGroups) -> dict[str, str]:
    """What `check` should be told, for the message."""
    return {
        f.node: "".join(
            chr(97 + c % 26).upper() if c in groups.reasons else chr(97 + c % 26)
            for c in f.channels.tolist()
        )
        for f in groups.filters
    }


def _session(proto: ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _feeds(proto: ModelProto, sizes: Sequence[int]) -> Iterator[dict[str, Array]]:
    """Random inputs at batch 1 and 3, at every size; a condition holds at batch 1 only."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    values = [value for value in proto.graph.input if value.name not in constants]
    rng = np.random.default_rng(1)
    for batch in (1, 3):
        for size in sizes:
            yield {v.name: _random(v.type.tensor_type, batch, size, rng) for v in values}


def _random(kind: TypeProto.Tensor, batch: int, size: int, rng: np.random.Generator) -> Array:
    open_size = {0: batch}
    shape = [dim.dim_value or open_size.get(k, size) for k, dim in enumerate(kind.shape.dim)]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    values = rng.normal(size=shape) if math.prod(shape) > 1 else np.full(shape, 2.0 - batch)
    return np.asarray(values > 0 if dtype == np.bool_ else values, dtype)
