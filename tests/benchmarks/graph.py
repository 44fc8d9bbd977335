"""Time reading, analysis and surgery against Torch-Pruning and onnxsim, on the same networks.

    python -m tests.benchmarks.graph                            all networks
    python -m tests.benchmarks.graph resnet18 timm/dla34 -o table.md

Every tool removes half of the filters of every layer, by magnitude, from the same weights.
onnxprune and onnxsim read the ONNX file that torch's exporter writes; Torch-Pruning gets the
network in memory. Each tool has a process of its own. Times are CPU seconds of one thread, medians
of several runs, without imports. Memory is the peak of the first run, less what the imports take.

The multiply-adds of each result are counted on its ONNX file, always by onnxprune's counter. The
file then runs on onnxruntime. If the tool says which filters it removed, the output is compared
with that of the original network with these filters set to zero. Needs torch-pruning and onnxsim;
timm's networks need timm.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.benchmarks.graph_tools import (
    MIB,
    MODEL,
    PRELOAD,
    TOOLS,
    first_line,
    judge,
    measure,
    measure_chain,
    write_network,
)

NETWORKS = (
    "alexnet vgg16 resnet18 resnet50 wide_resnet50_2 resnext50_32x4d densenet121 googlenet "
    "inception_v3 squeezenet1_1 mobilenet_v2 mobilenet_v3_large mnasnet1_0 efficientnet_b0 "
    "efficientnet_v2_s regnet_x_400mf regnet_y_400mf shufflenet_v2_x1_0 convnext_tiny"
).split()

TIMM = (
    "timm/ghostnet_100 timm/res2net50_26w_4s timm/cspresnet50 timm/hrnet_w18_small timm/dla34 "
    "timm/skresnet18 timm/resnest14d timm/mobilenetv4_conv_small timm/ese_vovnet39b"
).split()

CHAINS = (1_000, 3_000, 10_000)
"""The numbers of nodes of the synthetic graphs."""

PACKAGES = ("onnx", "onnxruntime", "torch", "torch-pruning", "onnxsim")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
EXACT = 1e-5
"""The largest relative error at which a result counts as equal to the masked network."""

Row = Mapping[str, Any]


def start(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run a function in a process of its own; return its result, or its error as `problem`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except Exception as error:
            return {"problem": f"{type(error).__name__}: {first_line(error)}"}


def compare(name: str, repeats: int) -> dict[str, Any]:
    """Prune one network with every tool; `row[tool]` holds the tool's figures or its problem."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        written = start(write_network, name, folder)
        if "problem" in written:
            return {"network": name, **written}
        row = {tool: start(measure, tool, folder, repeats) for tool in TOOLS}
        judged = start(judge, folder)
        if "problem" in judged:
            return {"network": name, **judged}
        for tool, found in judged.items():
            row[tool] = {**found, **row.get(tool, {})}
        return {"network": name, "bytes": (folder / MODEL).stat().st_size, **row}


def seconds(row: Row, tool: str, *stages: str) -> float | None:
    """Return the CPU seconds of some stages of a tool, or None if it did not reach them."""
    known = row[tool].get("seconds", {})
    return sum(known[stage] for stage in stages) if set(stages) <= known.keys() else None


def saved(row: Row, tool: str) -> float | None:
    """Return the share of the multiply-adds that a tool removed."""
    macs = row[tool].get("macs")
    return None if macs is None else 1 - macs / row["model"]["macs"]


def exactness(row: Row, tool: str) -> str:
    """Say if a result runs, and how far it is from the network with these filters set to zero."""
    found = row[tool]
    if "macs" not in found or "problem" in found:
        return str(found.get("problem", "no result")).replace("|", "/")[:90]
    if "error" not in found:
        return "runs"
    error = found["error"]
    return f"{error:.0e}" if error <= EXACT else f"**{error:.0e}**"


def time_table(rows: Sequence[Row]) -> list[str]:
    """Return a table of CPU seconds. "TP / ours" leaves out reading, saving and exporting."""
    lines = [
        "| network | nodes | read | graph | find | score | prune | save | **all** | TP graph | "
        "TP prune | TP export | TP / ours | onnxsim prune |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    work = ("graph", "find", "score", "prune")
    for row in rows:
        mine, peer = seconds(row, "ours", *work), seconds(row, "torch_pruning", "graph", "prune")
        cells = [
            str(row["model"]["nodes"]),
            *(_figure(seconds(row, "ours", stage)) for stage in ("read", *work, "save")),
            f"**{_figure(seconds(row, 'ours', 'read', *work, 'save'))}**",
            *(_figure(seconds(row, "torch_pruning", s)) for s in ("graph", "prune", "export")),
            f"{peer / mine:.1f}" if peer and mine else "fails",
            _figure(seconds(row, "onnxsim", "prune")),
        ]
        lines.append(f"| {_label(row)} | " + " | ".join(cells) + " |")
    return lines


def result_table(rows: Sequence[Row]) -> list[str]:
    """Return a table of the multiply-adds removed, and of exactness."""
    lines = [
        "| network | MACs (10^6) | ours | TP | onnxsim | ours = masked | TP = masked | onnxsim |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            f"{row['model']['macs'] / 1e6:.0f}",
            *(_share(saved(row, tool)) for tool in TOOLS),
            *(exactness(row, tool) for tool in TOOLS),
        ]
        lines.append(f"| {_label(row)} | " + " | ".join(cells) + " |")
    return lines


def memory_table(rows: Sequence[Row]) -> list[str]:
    """Return a table of peak memory, and its ratio to the size of the model's file."""
    lines = [
        "| network | file, MiB | ours, MiB | ours / file | TP | onnxsim |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        size = row["bytes"] / MIB
        peaks = [row[tool].get("memory") for tool in TOOLS]
        cells = [f"{size:.0f}", _mib(peaks[0]), f"{peaks[0] / size:.1f}" if peaks[0] else "fails"]
        lines.append(f"| {_label(row)} | " + " | ".join([*cells, *map(_mib, peaks[1:])]) + " |")
    return lines


def chain_table(rows: Sequence[Row]) -> list[str]:
    """Return a table of CPU microseconds a node, for synthetic graphs."""
    work = ("read", "graph", "find", "score", "prune", "save")
    lines = [f"| nodes | {' | '.join(work)} | CPU s in all |", "|---" * 8 + "|"]
    for row in rows:
        stages = [1e6 * row["seconds"][stage] / row["nodes"] for stage in work]
        whole = sum(row["seconds"].values())
        cells = " | ".join(f"{us:.0f} us" for us in stages)
        lines.append(f"| {row['nodes']:,} | {cells} | {whole:.2f} |")
    return lines


def read(path: Path | None) -> dict[str, dict[str, Any]]:
    """Read the newest result of every network from a file with one result a line."""
    if path is None or not path.exists():
        return {}
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {row["network"]: row for row in rows}


def _label(row: Row) -> str:
    return str(row["network"]).removeprefix("timm/")


def _figure(value: float | None) -> str:
    return "fails" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "fails" if value is None else f"-{value:.1%}"


def _mib(value: float | None) -> str:
    return "fails" if value is None else f"{value:.0f}"


def heading() -> str:
    """Describe the machine and the versions of the packages."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    machine = f"{platform.machine()}, one thread, Python {platform.python_version()}"
    return f"{machine}, {', '.join(found)}."


def report(rows: Sequence[Row], chains: Sequence[Row], repeats: int) -> str:
    """Return all tables as Markdown for the documents."""
    tables: list[tuple[str, Callable[[Sequence[Row]], list[str]], Sequence[Row]]] = [
        ("CPU seconds", time_table, rows),
        ("Multiply-adds removed, and exactness", result_table, rows),
        ("Peak memory", memory_table, rows),
        ("Growth with the number of nodes", chain_table, chains),
    ]
    parts = [f"Medians of {repeats} runs; {heading()}"]
    parts += [
        "\n".join([f"### {title}", "", *table(some)]) for title, table, some in tables if some
    ]
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.graph")
    parser.add_argument("networks", nargs="*", help="all by default; 'chains' for those alone")
    parser.add_argument("-o", "--output", type=Path, help="also write the tables to this file")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--rows", type=Path, help="file that keeps results; those in it are not measured again"
    )
    given = parser.parse_args(arguments)
    os.environ |= ONE_THREAD
    chosen = given.networks or [*NETWORKS, *(TIMM if find_spec("timm") else ()), "chains"]
    known = read(given.rows)
    for name in chosen:
        if name == "chains" or name in known:
            continue
        row = known[name] = compare(name, given.repeats)
        if given.rows:
            with given.rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        tables = () if "problem" in row else (time_table, result_table, memory_table)
        print("\n".join([table([row])[-1] for table in tables]) or row, flush=True)
    rows = [known[name] for name in chosen if "problem" not in known.get(name, {"problem": ""})]
    chains = [start(measure_chain, n, given.repeats) for n in CHAINS] if "chains" in chosen else []
    text = report(rows, chains, given.repeats)
    print(text)
    if given.output:
        given.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
