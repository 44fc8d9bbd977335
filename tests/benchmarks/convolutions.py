"""Time quick convolutions of 3 x 3 against torch's, forward and back to the inputs, one thread.

    python -m tests.benchmarks.convolutions [--shapes 8:64:128:32 ...] [--repeats 5]

A shape is samples, channels, filters and pixels of each side. Both get the same random inputs with
channels last, padded by one; the ways take turns. The weights at the points are there already, as
for all batches but the first. CPU seconds, medians. The error is the largest one against double
precision, of the largest output.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional

from onnxprune.ops._winograd import convolve_quickly, is_quicker

PADDED = [(1, 1), (1, 1)]
VGG16 = ("8:64:64:64", "8:64:128:32", "8:128:128:32", "8:128:256:16", "8:256:256:16")
DEEP = ("8:256:512:8", "8:512:512:8", "8:512:512:4", "4:256:256:56", "4:512:512:28")
RESNET50 = ("4:64:64:56", "4:128:128:28", "4:256:256:14", "4:512:512:7")
HEADER = """\
| samples | channels | filters | pixels | forward, ms | quick | back, ms | quick | error | of the \
quick one | chosen |
|---|---|---|---|---|---|---|---|---|---|---|"""


def milliseconds(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median of the CPU milliseconds of each way."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            begun = time.process_time()
            way()
            if turn:
                found[name].append(1000 * (time.process_time() - begun))
    return {name: median(times) for name, times in found.items()}


def row(shape: str, repeats: int) -> str:
    """Return one row of the table."""
    samples, channels, filters, pixels = map(int, shape.split(":"))
    torch.manual_seed(0)
    x = torch.rand(samples, channels, pixels, pixels).contiguous(memory_format=torch.channels_last)
    w = torch.randn(filters, channels, 3, 3) / channels**0.5
    x.requires_grad_()
    runs: dict[str, Callable[[], Tensor]] = {
        "direct": lambda: functional.conv2d(x, w, padding=1),
        "quick": lambda: convolve_quickly(x, w, None, PADDED),
    }
    exact = functional.conv2d(x.double(), w.double(), padding=1).detach()
    ends = {name: run() for name, run in runs.items()}
    errors = [float((y.detach() - exact).abs().max() / exact.abs().max()) for y in ends.values()]
    carried = torch.randn_like(ends["direct"])
    ways: dict[str, Callable[[], object]] = dict(runs)
    for name, end in ends.items():
        ways[f"{name} back"] = lambda end=end: torch.autograd.grad(
            end, x, carried, retain_graph=True
        )
    found = milliseconds(ways, repeats)
    cells = [str(samples), str(channels), str(filters), str(pixels)]
    cells += [f"{found[way]:.1f}" for way in ("direct", "quick", "direct back", "quick back")]
    cells += [f"{error:.0e}" for error in errors]
    return f"| {' | '.join(cells)} | {'quick' if is_quicker(x, w, PADDED) else 'direct'} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time quick convolutions against torch's.")
    parser.add_argument("--shapes", nargs="+", default=[*VGG16, *DEEP, *RESNET50])
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(HEADER)
    for shape in chosen.shapes:
        print(row(shape, chosen.repeats), flush=True)


if __name__ == "__main__":
    main()
