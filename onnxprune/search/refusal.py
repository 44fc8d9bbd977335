"""Refusal: why a target is out of reach, and what would bring it nearer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np

from onnxprune.channels import DENSE, find_groups
from onnxprune.errors import UnreachableTarget
from onnxprune.graph import file_size
from onnxprune.search.nets import Nets
from onnxprune.search.target import Target
from onnxprune.search.task import State, Task
from onnxprune.surgery import node_macs

LARGE = 0.1
"""Share of a figure from which on dense layers are named as what holds it."""
DIGITS = 12
"""Most digits behind the point; more are noise."""


def check_reach(nets: Nets) -> None:
    """Refuse a target that is far beyond what can go, before anything is searched.

    Where a floor is given as well, that ends the search.
    Raises: UnreachableTarget where parameters or multiply-adds cannot come near what is asked for.
    """
    task = nets.task
    if not task.target or task.floor:
        return
    most = task.picker.most()
    if task.target.far_from(task.costs, most):
        raise unreachable(nets, State(most))


def check_layer_rates(task: Task) -> None:
    """Refuse shares of single layers that these cannot lose, before anything is searched.

    Raises: UnreachableTarget naming the layer, or where nothing would go.
    """
    picker, groups = task.picker, task.groups
    if task.goals == ("layer_rate",) and not any(picker.quotas.values()):
        raise UnreachableTarget(
            "layer-rate: every share is less than one filter of its layer, or than what goes at "
            "once with round-to; ask for more"
        )
    most = picker.most() if picker.quotas else np.zeros(len(groups), np.bool_)
    for group, left in picker.due(most).items():
        own = groups.group == group
        gone = int((most & own).sum())
        reasons = [reason.text for c, reason in groups.reasons.items() if own[c]]
        why = f" ({Counter(reasons).most_common(1)[0][0]})" if reasons else ""
        stopped = (name.replace("_", "-") for name in picker.stopped_by(most))
        limits = ", ".join(name for name in stopped if name != "layer-rate")
        raise UnreachableTarget(
            f"layer-rate: of '{groups.title(groups.filters_of(group)[0].node)}' at most {gone} of "
            f"{int(own.sum())} filters can go{why}, {gone + left} are asked for; ask for less"
            + (f", or loosen {limits}" if limits else "")
        )


def unreachable(nets: Nets, state: State) -> UnreachableTarget:
    """Return the error that says how near a search came, and what was in the way."""
    task = nets.task
    left = ", ".join(_figures(nets, state))
    limits = ", ".join(name.replace("_", "-") for name in task.picker.stopped_by(state.dead))
    ways = [
        *_percentages(task.target),
        *(["ask for less"] if state.dead.any() else []),
        *([f"loosen {limits}"] if limits else []),
        *_lifts(task),
    ]
    rate = task.rate(state.dead)
    parts = [
        f"cannot be reached; the most that can go is rate {_beside(rate, task.target.rate)}, "
        f"which leaves {left}",
        *_most_pinned(task),
        *_dense(task, state),
        ", or ".join(ways) or "no filter may go",
    ]
    return UnreachableTarget(f"target: {'; '.join(parts)}")


def _percentages(target: Target) -> Iterator[str]:
    """Yield the share that was meant where a figure of a whole network is a percentage."""
    for name in ("params", "macs", "size"):
        goal = getattr(target, name)
        if goal is not None and 1 < goal <= 100:
            yield f"for {goal:g} % of {name}, give {goal / 100:g}"


def _figures(nets: Nets, state: State) -> Iterator[str]:
    """Yield what is left of each figure."""
    task = nets.task
    target, now, full = task.target, task.costs.of(state.dead), task.costs.of()
    for name, goal in (("params", target.params), ("macs", target.macs)):
        have, whole = now.figures()[name], full.figures()[name]
        if have is None or whole is None:
            yield f"{name} that are not known"
        else:
            yield f"{name} {have} ({_beside(have / max(whole, 1), goal)})"
    if target.size is not None:
        size = nets.reach.size(state)
        share = _beside(size / file_size(task.graph.model), target.size)
        yield f"size {size} bytes" + (f" ({share})" if target.size <= 1 else "")
    if target.latency_ms is not None:
        yield f"latency {_beside(nets.reach.latency(state), target.latency_ms)} ms"


def _beside(value: float, goal: float | None) -> str:
    """Write a figure with as many digits as it takes to differ from what was asked for."""
    for digits in range(3, DIGITS):
        text = f"{value:.{digits}f}"
        if goal is None or value == goal or float(text) != round(goal, digits):
            return text
    return repr(value)


def _most_pinned(task: Task) -> Iterator[str]:
    """Yield the reason that pins most filters, if there is one."""
    pinned: Counter[str] = Counter()
    for channel, reason in task.groups.reasons.items():
        pinned[reason.text] += int(task.groups.filter_count[channel])
    for text, count in pinned.most_common(1):
        of = int(task.groups.filter_count.sum())
        yield f"what pins most: {text} ({count} of {of} filters)"


def _lifts(task: Task) -> Iterator[str]:
    """Yield the option that lets more filters go, if one does: operators alone, or all at once."""
    groups = task.groups
    known = [*dict.fromkeys(node.split()[0].lower() for node in groups.inexact)]
    names = [*dict.fromkeys(reason.lift for reason in groups.reasons.values() if reason.lift)]
    best, more = "", 0
    for tried in (*names, ",".join(names)):
        if tried:
            allowed = [*known, *tried.split(",")]
            found = find_groups(task.graph, allow_inexact=allowed, also=groups.also)
            gained = found.removable_filters - groups.removable_filters
            best, more = (tried, gained) if gained > more else (best, more)
    if best:
        yield f"use --allow-inexact {','.join([*known, best])}, which lets {more} more filters go"


def _dense(task: Task, state: State) -> Iterator[str]:
    """Yield the share of dense layers, whose units are no filters, in a figure out of reach."""
    graph, target, now = task.graph, task.target, task.costs.of(state.dead)
    params: dict[str, float] = {}
    macs = 0.0
    for node in graph.nodes:
        if node.op is None or graph.filter_axis(node, dense=DENSE in task.groups.also) is not None:
            continue
        for name in (node.inputs[k] for k in node.op.weights if k < len(node.inputs)):
            shape = graph.shape(name)
            if shape is not None and len(shape) > 1:
                sizes = task.groups.sizes(name, state.dead)
                left = math.prod(sizes.get(axis, size) for axis, size in enumerate(shape))
                macs += node_macs(graph, node) * left / max(math.prod(shape), 1)
                params |= {name: left} if name in graph.constant_tensors else {}
    held = (target.params or target.size, sum(params.values()), now.params, "parameters")
    for goal, part, whole, what in (held, (target.macs, macs, now.macs, "multiply-adds")):
        if goal is not None and whole and part / whole >= LARGE:
            yield (
                f"{100 * part / whole:.0f} % of the {what} that are left are those of dense "
                f"layers, whose units are pruned with --also dense"
            )
