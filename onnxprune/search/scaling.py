"""Scaling: which preset the pixels of image files need, as far as the model itself says.

Converters write it into the metadata, or put a normalisation in front of the network. Such a graph
takes pixels from 0 to 255, or from 0 to 1, and gives the network values around 0. Where neither
says anything the usual preset is a guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.data import find_preset
from onnxprune.errors import DataError, InvalidValue
from onnxprune.graph import Graph, read_metadata
from onnxprune.ops import Node
from onnxprune.records import parse_json
from onnxprune.text import read_literal

Array = npt.NDArray[Any]

OWN_KEY = "onnxprune.preprocess"
"""Where a model names its preset."""
RANGES = {"NominalRange_0_255": "raw", "Normalized_0_1": "unit", "Normalized_1_1": "tf"}
"""Values of `Image.NominalPixelRange`. Source: ONNX, docs/MetadataProps.md."""
NAME_KEYS = ("names", "classes", "labels", "class_names", "class_labels")
"""Where exporters write the names of the classes."""

SPREAD = (0.9, 6.5)
"""How far apart the darkest and the brightest value are that a network is trained on."""
AS_THEY_ARE = ("Cast", "Identity", "Pad", "Resize", "Transpose")
"""Operators that leave the values of pixels as they are."""
CENTRE = 1.6
"""How far from 0 the middle of these values is at most."""


@dataclass(frozen=True)
class Scaling:
    """The preset for a model's pixels and, unless it is a guess, where that is read off."""

    preset: str
    why: str = ""

    def __str__(self) -> str:
        why = self.why or "the usual one, as the model does not say"
        return f"preprocess: '{self.preset}', {why}"


def find_scaling(graph: Graph) -> Scaling:
    """Return the preset that the pixels of image files need.

    Raises: DataError where the model takes pixels in a form that no preset gives.
    """
    shape, dtype = graph.image_form
    return (
        _from_metadata(metadata(graph))
        or (Scaling("raw", f"as the model takes {dtype}") if dtype.kind in "iu" else None)
        or _from_nodes(graph)
        or Scaling("unit" if len(shape) == 3 and 1 in (shape[0], shape[2]) else "imagenet")
    )


def metadata(graph: Graph) -> dict[str, str]:
    """Return what the metadata of a model says, by key."""
    return read_metadata(graph.bare)


def _from_metadata(said: Mapping[str, str]) -> Scaling | None:
    if own := said.get(OWN_KEY, ""):
        try:
            find_preset(own)
        except InvalidValue as error:
            raise DataError(f"the model's metadata, {OWN_KEY}: {error}") from error
        return Scaling(own, f"as the model's metadata says ({OWN_KEY})")
    kind = said.get("Image.NominalPixelRange", "")
    if kind in RANGES:
        order = said.get("Image.BitmapPixelFormat", "")
        if order.lower().startswith("bgr") and RANGES[kind] == "raw":
            return Scaling("bgr", f"as the model's metadata says ({kind}, {order})")
        if order.lower().startswith("bgr"):
            raise DataError(
                f"preprocess: the model's metadata says that it takes {order} pixels, which no "
                f"preset gives; give the samples as an .npz or a function, or name a preset"
            )
        return Scaling(RANGES[kind], f"as the model's metadata says ({kind})")
    if "ultralytics" in said.get("author", "").lower():
        return Scaling("unit", "as networks of Ultralytics take it")
    return None


# What the graph does to a pixel first


def _from_nodes(graph: Graph) -> Scaling | None:
    """Read the range of the pixels off the normalisation that the graph begins with."""
    rank = len(graph.image_form[0]) + 1
    slope: Array = np.ones((1,) * rank)
    offset, seen = np.zeros_like(slope), list[str]()
    for node in _first_nodes(graph):
        found = _followed(graph, node, slope, offset)
        if found is None:
            break
        slope, offset = found
        if node.op_type not in AS_THEY_ARE:
            seen.append(node.op_type)
    if np.allclose(slope, 1, atol=0.1) and np.allclose(offset, 0, atol=0.1):
        return None
    for name, low, high in (("raw", 0, 255), ("unit", 0, 1), ("tf", -1, 1)):
        if seen and _is_normal(slope * low + offset, slope * high + offset):
            return Scaling(name, f"as the graph itself normalises its pixels ({', '.join(seen)})")
    return None


def _is_normal(low: Array, high: Array) -> bool:
    """Whether a network is trained on values from one of these to the other.

    So are those of Caffe's networks, which only subtract the mean of pixels from 0 to 255.
    """
    spread, centre = np.abs(high - low), np.abs(high + low) / 2
    if (np.abs(spread - 255) < 1).all():
        return bool((centre < 50).all())
    return bool(
        (spread >= SPREAD[0]).all() and (spread <= SPREAD[1]).all() and (centre <= CENTRE).all()
    )


def _first_nodes(graph: Graph) -> Iterator[Node]:
    """The nodes that one after another are the only readers of the image."""
    name = graph.image
    while len(readers := graph.consumers.get(name, [])) == 1 and name not in graph.outputs:
        yield readers[0]
        name = readers[0].outputs[0]


def _followed(graph: Graph, node: Node, slope: Array, offset: Array) -> tuple[Array, Array] | None:
    """Return slope and offset behind a node, None where it does more than scale and shift.

    Shapes: as they broadcast with the image, batch axis included.
    """
    kind, computed = node.op_type, [n for n in node.inputs if n and n not in graph.constant_tensors]
    if len(computed) != 1:
        return None
    if kind == "Transpose":
        order = node.attributes.get("perm")
        return None if order is None else (slope.transpose(order), offset.transpose(order))
    if kind in AS_THEY_ARE:
        return slope, offset
    if kind == "BatchNormalization":
        gamma, beta, mean, var = (graph.constant(name) for name in node.inputs[1:5])
        factor = gamma / np.sqrt(var + node.attributes.get("epsilon", 1e-5))
        axes = (-1, *(1 for _ in range(slope.ndim - 2)))
        factor, shift = factor.reshape(axes), (beta - mean * factor).reshape(axes)
        return slope * factor, offset * factor + shift
    if kind not in ("Add", "Sub", "Mul", "Div"):
        return None
    first = node.inputs[0] == computed[0]
    constant = graph.constant(node.inputs[1 if first else 0]).astype(np.float64)
    if kind == "Add":
        return slope, offset + constant
    if kind == "Sub":
        return (slope, offset - constant) if first else (-slope, constant - offset)
    if kind == "Mul":
        return slope * constant, offset * constant
    return (slope / constant, offset / constant) if first else None


# The names of the classes


def class_names(graph: Graph) -> tuple[str, ...]:
    """Return the names of the model's classes, in order, that its metadata lists; often none."""
    shape = graph.shape(graph.outputs[0])
    found = (names for names in listed_names(graph) if not shape or len(names) in shape[1:])
    return next(found, ())


def listed_names(graph: Graph) -> Iterator[tuple[str, ...]]:
    """Yield the lists of names that the metadata holds."""
    said = metadata(graph)
    return filter(None, (_names(said.get(key, "")) for key in NAME_KEYS))


def _names(text: str) -> tuple[str, ...]:
    """Read a list, or a dictionary by numbers, as Python or JSON writes it, or lines of names."""
    held: Any = None
    for read in (parse_json, read_literal):
        try:
            held = read(text)
            break
        except ValueError:
            continue
    if isinstance(held, dict):
        try:
            numbered = {int(k): str(v) for k, v in held.items()}
        except (TypeError, ValueError):
            return ()
        held = [numbered[k] for k in sorted(numbered)]
        return tuple(held) if sorted(numbered) == list(range(len(held))) else ()
    if isinstance(held, list | tuple):
        return tuple(map(str, held))
    lines = text.splitlines() if "\n" in text else text.split(",")
    return tuple(filter(None, map(str.strip, lines))) if len(lines) > 1 else ()
