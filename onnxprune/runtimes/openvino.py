"""OpenVINO: IR, an .xml beside the weights in a .bin, in 32-bit floats throughout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("openvino",)

SETTINGS = {
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": "f32",  # else CPUs that have bfloat16 compute in that
    "ENABLE_CPU_PINNING": False,  # a thread that is pinned waits for a core that others use
}


def convert(model: Path, folder: Path) -> Path:
    """Write a model as IR, weights as they are."""
    import openvino

    file = folder / f"{model.stem}.xml"
    read = openvino.Core().read_model(str(model))  # as it is, weights too
    converted = read if _part_orders(read) else openvino.convert_model(model)
    openvino.save_model(converted, file, compress_to_fp16=False)
    return file


def _part_orders(model: Any) -> bool:
    """Let every Gather that reorders be two that undo themselves, and say whether there was one.

    OpenVINO 2026.4 puts the order of a Gather into the weights of a convolution behind it, and
    takes the order where its inverse belongs. Where both are one, that is right.
    """
    from openvino import opset8

    parted = False
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Gather" or len(node.input_values()) != 3:
            continue
        data, places, axis = node.input_values()
        if any(one.get_node().get_type_name() != "Constant" for one in (places, axis)):
            continue
        order = places.get_node().data
        if order.ndim != 1 or sorted(order) != list(range(order.size)):
            continue
        for part in undone_parts(order.tolist()):
            data = opset8.gather(data, np.array(part), axis).output(0)
        data.get_node().set_friendly_name(node.get_friendly_name())
        node.output(0).replace(data)
        parted = True
    return parted


def undone_parts(order: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return two orders that undo themselves and that, one after the other, are an order.

    Along a cycle both turn round: reflections of a circle, whose product is a rotation.
    """
    first, second = list(order), list(order)
    seen: set[int] = set()
    for start in range(len(order)):
        cycle, place = [], start
        while place not in seen:
            seen.add(place)
            cycle.append(place)
            place = order[place]
        for k, place in enumerate(cycle):
            first[place], second[place] = cycle[-k % len(cycle)], cycle[(-1 - k) % len(cycle)]
    return first, second


def load(file: Path, threads: int) -> OpenVinoSession:
    """Compile a model for the CPU."""
    return OpenVinoSession(file, threads)


class OpenVinoSession:
    """A model compiled by OpenVINO."""

    def __init__(self, file: Path, threads: int) -> None:
        import openvino

        settings = {**SETTINGS, "INFERENCE_NUM_THREADS": threads}
        compiled = openvino.Core().compile_model(str(file), "CPU", settings)
        self._request = compiled.create_infer_request()
        self.inputs = [
            (_name(port), port.element_type.to_dtype(), _shape(port)) for port in compiled.inputs
        ]
        self.outputs = [_name(port) for port in compiled.outputs]

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run the model once."""
        values = [feeds[name] for name, _, _ in self.inputs]
        found = self._request.infer(dict(enumerate(values)), share_inputs=True).to_tuple()
        return dict(zip(self.outputs, map(np.array, found), strict=True))


def _name(port: Any) -> str:
    return str(port.any_name)


def _shape(port: Any) -> list[int | None] | None:
    shape = port.partial_shape
    if shape.rank.is_dynamic:
        return None
    return [None if size.is_dynamic else size.get_length() for size in shape]
