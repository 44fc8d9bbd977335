"""Models: the cases of all operators and small random networks, changed field by field or as bytes.

`inspect`, its drawing, a search without samples and `apply` read each of them.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf import json_format, text_format
from google.protobuf.message import DecodeError, Message
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnxprune
import onnxprune.run
from onnxprune.report import inspect
from tests.fuzz.judging import Kind, lay_file
from tests.fuzz.mutators import LONGEST, NUMBERS, WORDS, mutate_bytes
from tests.ops.cases import CASES
from tests.support.models import model
from tests.support.random_networks import BLOCKS, Image, Network, conv, head

NETWORKS = 100
HEADS = {
    "dense": """
g (float[N,3,8,8] x) => (float[N,5] y) <float[4,3,3,3] w, float[4] b, float[144,5] v> {
  c = Conv(x, w, b) r = Relu(c) f = Flatten(r) y = MatMul(f, v)
}""",
    "if": """
g (float[1,3,8,8] x, bool c) => (float[N,O,H,W] y) <float[4,3,3,3] w, float[4,3,3,3] v> {
  y = If (c) <then_branch = a () => (float[N,C,H,W] p) { p = Conv(x, w) },
              else_branch = b () => (float[N,C,H,W] q) { q = Conv(x, v) }>
}""",
    "loop": """
g (float[1,3,8,8] x, int64 n, bool c) => (float[N,O,H,W] y) <float[3,3,3,3] w> {
  y = Loop (n, c, x) <body = b (int64 i, bool go, float[1,3,8,8] s) => (bool on, float[1,3,8,8] t)
    { on = Identity(go) t = Conv<pads=[1,1,1,1]>(s, w) }>
}""",
}


class Drawn(Network):
    """A network whose choices are those of a generator of random numbers."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(lambda _: 0, rng.random() < 0.5)
        self._rng = rng

    def pick(self, low: int, high: int) -> int:
        return self._rng.randint(low, high)


def network(rng: random.Random) -> str:
    """A random network as ONNX text, as `tests.support.random_networks.networks` draws them."""
    net = Drawn(rng)
    net.images.append(conv(net, Image("x", 3, 8)))
    for _ in range(rng.randint(1, 8)):
        made = rng.choice(BLOCKS)(net, rng.choice(net.images[-4:]))
        if made not in net.images and made.channels <= 32:
            net.images.append(made)
    return net.text({"y": head(net, net.images[-1], "y")})


class Seeds(Sequence[bytes]):
    """Good models, each made when it is asked for, the same ones in every process."""

    def __len__(self) -> int:
        return len(HEADS) + 1 + NETWORKS + len(CASES)

    @cache  # noqa: B019 - there is one
    def __getitem__(self, index: Any) -> Any:
        if index < 0 or index >= len(self):
            raise IndexError(index)
        return bytes(self._model(index).SerializeToString())

    def _model(self, index: int) -> ModelProto:
        if index < len(HEADS):
            return model(list(HEADS.values())[index])
        index -= len(HEADS)
        if index == 0:
            return functions(3, 2)
        if index <= NETWORKS:
            return model(network(random.Random(index)))
        return CASES[index - 1 - NETWORKS].model


SEEDS = Seeds()


def functions(depth: int, calls: int) -> ModelProto:
    """A model whose functions call each other, each `calls` times, `depth` deep."""
    proto = model(HEADS["dense"])
    proto.opset_import.append(onnx.helper.make_opsetid("own", 1))
    for level in range(depth):
        inner = "Relu" if level == 0 else f"f{level - 1}"
        domain = "" if level == 0 else "own"
        names = ["x", *(f"t{k}" for k in range(calls - 1)), "y"]
        nodes = [onnx.helper.make_node(inner, [a], [b], domain=domain) for a, b in pairwise(names)]
        imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("own", 1)]
        proto.functions.append(
            onnx.helper.make_function("own", f"f{level}", ["x"], ["y"], nodes, imports)
        )
    relu = next(node for node in proto.graph.node if node.op_type == "Relu")
    relu.op_type, relu.domain = f"f{depth - 1}", "own"
    return proto


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Change one field of a model, or its bytes."""
    if rng.random() < 0.2:
        return mutate_bytes(rng, data)
    try:
        proto = ModelProto.FromString(data)
        if rng.random() < 0.5 and rng.choice(MEANT)(rng, proto):
            return bytes(proto.SerializeToString())
        places = list(_messages(proto))
        for _ in range(20):  # until a change fits
            message = rng.choice(places)
            if rng.choice((_set, _set, _drop, _double, _swap, _transplant))(rng, message, places):
                break
        changed = bytes(proto.SerializeToString())
    except (DecodeError, ValueError, TypeError, KeyError):  # no model, or a name that is no text
        return mutate_bytes(rng, data)
    if rng.random() < 0.05:
        changed = _spoil_text(rng, proto, changed)
    return changed if len(changed) < LONGEST else data


def _messages(message: Message) -> Iterator[Message]:
    """A message and all inside it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in value if _repeats(field) else [value]:
                yield from _messages(one)


def _repeats(field: Any) -> bool:
    return bool(field.is_repeated)


def _set(rng: random.Random, message: Message, places: Sequence[Message]) -> bool:
    """Give a field of one value, set or not, or one element of many, another value."""
    present = [field for field, _ in message.ListFields()]
    fields = present if present and rng.random() < 0.8 else message.DESCRIPTOR.fields
    field = rng.choice(list(fields))
    if field.message_type is not None:
        return False
    value = _value(rng, field, places)
    try:
        if not _repeats(field):
            setattr(message, field.name, value)
        elif len(held := getattr(message, field.name)) and rng.random() < 0.8:
            held[rng.randrange(len(held))] = value
        else:
            held.append(value)
    except (ValueError, TypeError, UnicodeError):
        return False
    return True


def _value(rng: random.Random, field: Any, places: Sequence[Message]) -> Any:
    kind = field.cpp_type
    if kind == field.CPPTYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    if kind == field.CPPTYPE_STRING:
        if field.type == field.TYPE_BYTES:
            return rng.choice((*WORDS, bytes(rng.randrange(64))))
        named = [n for one in places if (n := getattr(one, "name", "")) and isinstance(n, str)]
        if named and rng.random() < 0.5:
            return rng.choice(named)
        return rng.choice(WORDS).decode("utf-8", "ignore")
    if kind in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice((0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), 0.5))
    if kind == field.CPPTYPE_INT32:
        return rng.choice([n for n in NUMBERS if abs(n) < 2**31] + list(range(30)))
    return rng.choice((*NUMBERS, *range(10), 100_000, 10**9))


def _drop(rng: random.Random, message: Message, places: Sequence[Message]) -> bool:
    """Remove a field, or one element of many."""
    present = message.ListFields()
    if not present:
        return False
    field, value = rng.choice(present)
    if _repeats(field) and rng.random() < 0.8:
        del value[rng.randrange(len(value))]
    else:
        message.ClearField(field.name)
    return True


def _double(rng: random.Random, message: Message, places: Sequence[Message]) -> bool:
    """Repeat an element of many."""
    many = [(field, value) for field, value in message.ListFields() if _repeats(field)]
    if not many:
        return False
    field, value = rng.choice(many)
    one = value[rng.randrange(len(value))]
    if field.message_type is None:
        value.append(one)
    else:
        value.add().CopyFrom(one)
    return True


def _swap(rng: random.Random, message: Message, places: Sequence[Message]) -> bool:
    """Exchange two elements of many."""
    many = [(f, v) for f, v in message.ListFields() if _repeats(f) and len(v) > 1]
    if not many:
        return False
    field, value = rng.choice(many)
    i, j = rng.sample(range(len(value)), 2)
    if field.message_type is None:
        value[i], value[j] = value[j], value[i]
    else:
        other = type(value[i])()
        other.CopyFrom(value[i])
        value[i].CopyFrom(value[j])
        value[j].CopyFrom(other)
    return True


def _transplant(rng: random.Random, message: Message, places: Sequence[Message]) -> bool:
    """Put a message of the same type, from elsewhere in the model, in the place of one."""
    alike = [one for one in places if one.DESCRIPTOR is message.DESCRIPTOR and one is not message]
    if not alike:
        return False
    other = type(message)()
    other.CopyFrom(rng.choice(alike))
    message.CopyFrom(other)
    return True


def _weights(proto: ModelProto) -> list[TensorProto]:
    held = [attribute.t for node in proto.graph.node for attribute in node.attribute]
    found = [*proto.graph.initializer, *(tensor for tensor in held if tensor.data_type)]
    return [tensor for tensor in found if tensor.data_location != TensorProto.EXTERNAL]


def _renumber(rng: random.Random, proto: ModelProto) -> bool:
    """Change a number that states a shape, a bound, an axis or an amount."""
    tensors = [t for t in _weights(proto) if t.data_type in (TensorProto.INT64, TensorProto.INT32)]
    attributes = [a for node in proto.graph.node for a in node.attribute if a.ints or a.i]
    if tensors and rng.random() < 0.6:
        tensor = rng.choice(tensors)
        values = numpy_helper.to_array(tensor).copy()
        if not values.size:
            return False
        number = rng.choice(SIZES)
        values.flat[rng.randrange(values.size)] = number if values.itemsize == 8 else number % 2**31
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    elif attributes:
        attribute = rng.choice(attributes)
        if attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(SIZES)
        else:
            attribute.i = rng.choice(SIZES)
    else:
        return False
    return True


def _reshape(rng: random.Random, proto: ModelProto) -> bool:
    """Give a constant another shape or type, and the values that fill it."""
    tensors = _weights(proto)
    if not tensors:
        return False
    tensor = rng.choice(tensors)
    shape = list(tensor.dims)
    for _ in range(rng.randint(0, 2)):
        k = rng.randint(0, len(shape))
        change = rng.randrange(4)
        if change == 0:
            shape.insert(k, rng.choice((1, 1, 2, 0)))
        elif shape:
            k %= len(shape)
            if change == 1:
                del shape[k]
            elif change == 2:
                shape[k] = rng.choice((0, 1, 2, 3, 5, shape[k] * 2, shape[k] + 1))
            else:
                rng.shuffle(shape)
    if math.prod(shape) > 4096:
        return False
    kind = tensor.data_type if rng.random() < 0.8 else rng.choice((1, 6, 7, 9, 10, 11, 3, 2))
    try:
        values = numpy_helper.to_array(tensor).ravel()
        filled = np.resize(values if values.size else np.ones(1), shape)
        other = filled.astype(helper.tensor_dtype_to_np_dtype(kind))
        tensor.CopyFrom(numpy_helper.from_array(other, tensor.name))
    except (TypeError, ValueError, KeyError, OverflowError):
        return False
    return True


def _rewire(rng: random.Random, proto: ModelProto) -> bool:
    """Let a node read another tensor, or fewer or more of them."""
    nodes = [node for node in proto.graph.node if node.input]
    if not nodes:
        return False
    node = rng.choice(nodes)
    names = [t.name for t in (*proto.graph.initializer, *proto.graph.input)]
    names += ["", *(name for other in proto.graph.node for name in other.output)]
    if rng.random() < 0.2:
        node.input.append(rng.choice(names))
    elif rng.random() < 0.1:
        del node.input[rng.randrange(len(node.input))]
    else:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    return True


def _resize(rng: random.Random, proto: ModelProto) -> bool:
    """Change the size of an axis of an input or an output, or how many axes there are."""
    values = [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]
    if not values:
        return False
    value = rng.choice(values)
    dims = value.type.tensor_type.shape.dim
    if not dims or rng.random() < 0.1:
        dims.add(dim_value=rng.choice(SIZES))
    elif rng.random() < 0.1:
        del dims[rng.randrange(len(dims))]
    elif rng.random() < 0.2:
        dims[rng.randrange(len(dims))].dim_param = rng.choice("NHWM")
    else:
        dims[rng.randrange(len(dims))].dim_value = rng.choice(SIZES)
    return True


SIZES = (*range(-4, 10), 16, 64, 1000, 100_000, 10**9, 2**31, 2**62, -(2**63), 2**63 - 1)
MEANT = (_renumber, _renumber, _reshape, _rewire, _resize)
"""Changes that leave a model more or less valid, so that they come far."""


def _spoil_text(rng: random.Random, proto: ModelProto, data: bytes) -> bytes:
    """Make one of the names in a model's bytes no UTF-8."""
    names = [node.name or node.op_type for node in proto.graph.node]
    names += [name for node in proto.graph.node for name in (*node.input, *node.output)]
    names = [name for name in names if name and isinstance(name, str)]
    if not names:
        return data
    name = rng.choice(names).encode()
    return data.replace(name, b"\xff" + name[1:])


def read(path: Path, out: Path) -> None:
    """Inspect a model, draw it, prune it without samples, and apply what comes of that."""
    inspect(str(path), svg=out / "drawing.svg")
    found = onnxprune.prune(
        str(path), control="one-shot", criterion="magnitude", compensate="none", rate=0.3
    )
    found.plan.save(out / "plan.json")
    onnxprune.run.apply_to(out / "small.onnx", str(path), out / "plan.json")


TEXTS = {
    ".json": lambda proto: json_format.MessageToJson(proto),
    ".txtpb": lambda proto: text_format.MessageToString(proto),
    ".onnxtxt": lambda proto: onnx.printer.to_text(proto),
}
"""ONNX's own forms of a model as text, by the suffix that names them."""


@cache
def text_seeds() -> list[bytes]:
    """Models as text; a first line says which suffix they go by."""
    found = []
    for index in range(12):
        proto = ModelProto.FromString(SEEDS[index])
        found += [f"{suffix}\n{write(proto)}".encode() for suffix, write in TEXTS.items()]
    return [json.dumps({}).encode(), *found]


def lay_text(data: bytes, folder: Path) -> Path:
    """Write a model as text under the suffix that its first line names."""
    first, _, rest = data.partition(b"\n")
    suffix = first.decode("ascii", "ignore")
    path = folder / f"model{suffix if suffix in (*TEXTS, '.txt', '.pbtxt') else '.json'}"
    path.write_bytes(rest)
    return path


KINDS = (
    Kind("models", lambda: SEEDS, read, lay_file(".onnx"), mutate),
    Kind("model-texts", text_seeds, read, lay_text, mutate_bytes),
)
