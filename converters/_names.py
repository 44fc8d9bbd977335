"""What the outputs of a model are called: as in the framework, where it has names for them."""

from collections import Counter
from collections.abc import Iterator, Sequence

import onnx

Place = tuple[str | int, ...]
"""Where an output lies in what a network returns: keys of dicts, places in lists."""


def numbered(count: int) -> list[str]:
    """`output`, `output_1`, `output_2`, ..., as torch's users call them."""
    return ["output", *(f"output_{k}" for k in range(1, count))]


def output_names(places: Sequence[Place]) -> list[str]:
    """Return a name for each output: its key, with the keys and places around it if several share.

    Those that have no key are called by their number.

    >>> output_names([("boxes",), ("aux", "scores"), (2,)])
    ['boxes', 'aux.scores', 'output_2']
    >>> output_names([("features", 0), ("features", 1)])
    ['features.0', 'features.1']
    """
    keys = [".".join(key for key in place if isinstance(key, str)) for place in places]
    times = Counter(keys)
    names = [
        ".".join(map(str, place)) if key and times[key] > 1 else key
        for key, place in zip(keys, places, strict=True)
    ]
    return [name or habit for name, habit in zip(names, numbered(len(names)), strict=True)]


def name_outputs(graph: onnx.GraphProto, names: Sequence[str] = ()) -> None:
    """Call the outputs by the framework's names, or by `numbered` where they have but a number.

    An input that is given back, and an output that is given twice, keep their name. Where a name is
    taken inside the model, the tensor there gets another one.
    """
    old = [value.name for value in graph.output]
    if len({*names}) < len(old) or len(names) > len(old):
        habit = numbered(len(old))
        names = [new if name.isdecimal() else name for new, name in zip(habit, old, strict=True)]
    fixed = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    fixed |= {name for name, times in Counter(old).items() if times > 1}
    pairs = zip(old, names, strict=True)
    new = {one: other for one, other in pairs if one not in fixed and other not in fixed}
    if len({new.get(name, name) for name in old}) < len(old):
        return
    taken = {*_inner(graph)} - new.keys()
    for name in taken & {*new.values()}:
        new[name] = _free(name, taken | {*new.values()} | fixed)
    for part in graphs(graph):
        for node in part.node:
            node.input[:] = [new.get(name, name) for name in node.input]
            node.output[:] = [new.get(name, name) for name in node.output]
        for one in (*part.input, *part.output, *part.value_info, *part.initializer):
            one.name = new.get(one.name, one.name)


def _free(name: str, taken: set[str]) -> str:
    """A name that nothing has yet."""
    number = 1
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those of its branches and loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from graphs(inner)


def _inner(graph: onnx.GraphProto) -> Iterator[str]:
    """What nodes compute, and what branches and loops bring with them."""
    for part in graphs(graph):
        for node in part.node:
            yield from node.output
        if part is not graph:
            yield from (one.name for one in (*part.input, *part.initializer))
