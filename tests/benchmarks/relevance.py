"""Time LRP on a network against zennit, and against one plain forward and backward pass.

    python -m tests.benchmarks.relevance [--networks vgg16 resnet50] [--size 64] [--batch 8] ...

Both get the same batch and the same rule, and compute the relevance at the output of every
convolution, not that of the image. The plain network computes the gradient there. Weights are
frozen, so none computes their gradients. The programs take turns, so that other load on the machine
slows all alike. Times are medians; on a CPU they are CPU seconds. Where zennit has the rule, the
relevance of the filters is compared too. It is in single precision, so with epsilon, which divides
by sums that may be small, it differs more.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from onnxprune.channels.groups import find_groups
from onnxprune.converters import Options
from onnxprune.converters.pytorch import export_network
from onnxprune.converters.torchvision import import_torchvision
from onnxprune.graph.graph import Graph
from onnxprune.relevance.fuse import folded
from onnxprune.relevance.lrp import relevance, start
from onnxprune.relevance.mirror import Mirror
from onnxprune.relevance.rules import RULES

CANONIZERS = {"vgg": "VGGCanonizer", "resnet": "ResNetCanonizer"}
DEFAULT = ("epsilon", "zplus", "epsilon-plus", "gamma", "alpha-beta")
Way = Callable[[], list[Tensor]]


@dataclass(frozen=True)
class Problem:
    """A network, its mirror, and a batch with labels."""

    name: str
    network: nn.Module
    mirror: Mirror
    x: Tensor
    y: Tensor


def prepare(name: str, size: int, batch: int, device: str) -> Problem:
    """Make a network of random weights, and BatchNorm of epsilon 0, which zennit adds twice."""
    torch.manual_seed(0)
    network: nn.Module = import_torchvision().models.get_model(name, weights=None)
    if name.startswith("vgg") and size != 224:  # its pool to 7 x 7 exports from 224 alone
        network.avgpool = nn.Identity()
        network.classifier[0] = nn.Linear(512 * (size // 32) ** 2, 4096)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    options = Options(input_shape=(3, size, size), exporter="classic", keep_batchnorm=True)
    graph = Graph(export_network(network, name, options).model)
    network = network.eval().requires_grad_(False).to(device)
    x = torch.randn(batch, 3, size, size).to(device)
    y = torch.arange(batch, device=device)
    return Problem(name, network, folded(Mirror(graph, device=device)), x, y)


def carried_back(problem: Problem, network: nn.Module) -> Way:
    """Make a pass forward, and backward from the explained logits to each convolution's output."""

    def run() -> list[Tensor]:
        outputs: list[Tensor] = []
        with ExitStack() as stack:
            for module in network.modules():
                if isinstance(module, nn.Conv2d):
                    hook = module.register_forward_hook(lambda _m, _i, out: outputs.append(out))
                    stack.callback(hook.remove)
            logits = network(problem.x.clone().requires_grad_())
        begin = start(logits.detach(), problem.y)
        return [values.sum((2, 3)) for values in torch.autograd.grad(logits, outputs, begin)]

    return run


def forward(problem: Problem) -> Way:
    """Make a forward pass of the plain network."""

    def run() -> list[Tensor]:
        with torch.no_grad():
            return [problem.network(problem.x)]

    return run


def zennit_rules() -> Mapping[str, object]:
    """Return zennit's rules by our names."""
    from zennit.rules import AlphaBeta, Epsilon, Gamma, ZPlus

    return {
        "epsilon": Epsilon(),
        "zplus": ZPlus(zero_params="bias"),
        "gamma": Gamma(),
        "alpha-beta": AlphaBeta(),
    }


def composite(problem: Problem, hook: object) -> Any:
    """Return zennit's composite: its base, with one rule for all convolutions and dense layers."""
    import zennit.torchvision
    from zennit.composites import LayerMapComposite, layer_map_base
    from zennit.types import Convolution

    family = next(c for prefix, c in CANONIZERS.items() if problem.name.startswith(prefix))
    return LayerMapComposite(
        layer_map=[*layer_map_base(), (Convolution, hook), (nn.Linear, hook)],
        canonizers=[getattr(zennit.torchvision, family)()],
    )


def ours(problem: Problem, rule: str) -> Way:
    """Make our LRP pass, as the criteria call it."""
    names = [filters.output for filters in find_groups(problem.mirror.graph).filters]

    def run() -> list[Tensor]:
        found = relevance(
            problem.mirror,
            problem.x,
            problem.y,
            RULES[rule],
            names,
            reduce=lambda _, r: r.sum((2, 3)),
        )
        return [found[name] for name in names]

    return run


@dataclass
class Timing:
    """The seconds of each turn, and the relative difference of the relevance to zennit's."""

    seconds: dict[str, list[float]]
    difference: float | None = None

    def median(self, way: str) -> float:
        """Return the median of a way's turns, in milliseconds."""
        return 1000 * median(self.seconds[way])


def clock(way: Way, device: str) -> tuple[float, list[Tensor]]:
    """Run a pass once; return its seconds (on a CPU, CPU seconds) and its result."""
    now = time.process_time if device == "cpu" else time.perf_counter
    begin = now()
    found = way()
    if device != "cpu":
        torch.cuda.synchronize()
    return now() - begin, found


def measure(problem: Problem, rule: str, repeats: int, device: str) -> Timing:
    """Time all passes with one rule, in turns. The first turn of each does not count.

    zennit's hooks are registered once, before the clock runs.
    """
    ways = {
        "forward": forward(problem),
        "plain": carried_back(problem, problem.network),
        "ours": ours(problem, rule),
    }
    theirs = zennit_rules().get(rule)
    with ExitStack() as stack:
        if theirs is not None:
            twin = stack.enter_context(
                composite(problem, theirs).context(deepcopy(problem.network))
            )
            ways["zennit"] = carried_back(problem, twin)
        found = {name: clock(way, device)[1] for name, way in ways.items()}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeats):
            for name, way in ways.items():
                seconds[name].append(clock(way, device)[0])
    return Timing(seconds, distance(found["ours"], found["zennit"]) if theirs else None)


def distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest relative distance over layers, in the l2 norm over filters."""
    pairs = zip(found, expected, strict=True)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


HEADER = """\
| network | rule | plain forward, ms | forward + backward, ms | zennit, ms | ours, ms | ours in \
forward + backward | zennit / ours | difference |
|---|---|---|---|---|---|---|---|---|"""


def row(problem: Problem, rule: str, timing: Timing) -> str:
    """Return one row of the table."""
    alone, plain, mine = (timing.median(way) for way in ("forward", "plain", "ours"))
    cells = [problem.name, rule, f"{alone:.0f}", f"{plain:.0f}"]
    if timing.difference is None:
        return f"| {' | '.join([*cells, '', f'{mine:.0f}', f'{mine / plain:.2f}', '', ''])} |"
    theirs = timing.median("zennit")
    cells += [f"{theirs:.0f}", f"{mine:.0f}", f"{mine / plain:.2f}", f"{theirs / mine:.2f}"]
    return f"| {' | '.join([*cells, f'{timing.difference:.0e}'])} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time relevance against zennit and plain torch.")
    parser.add_argument("--networks", nargs="+", default=["vgg16", "resnet50"])
    parser.add_argument("--rules", nargs="+", default=DEFAULT)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    warnings.simplefilter("ignore")
    print(f"batch {chosen.batch}, {chosen.size} px, {chosen.device}, {chosen.threads} thread(s),")
    print(f"medians of {chosen.repeats} turns, torch {torch.__version__}\n\n{HEADER}")
    for name in chosen.networks:
        problem = prepare(name, chosen.size, chosen.batch, chosen.device)
        for rule in chosen.rules:
            timing = measure(problem, rule, chosen.repeats, chosen.device)
            print(row(problem, rule, timing), flush=True)


if __name__ == "__main__":
    main()
