"""Remove half of the removable filters of every group from many networks, in many exports.

    python -m tests.benchmarks.networks                       all networks, all exports
    python -m tests.benchmarks.networks resnet18 own/unet     some of them
    python -m tests.benchmarks.networks --list others --exports dynamo,classic-17
    python -m tests.benchmarks.networks --table coverage.jsonl
    python -m tests.benchmarks.networks --matrix coverage.jsonl

Every network runs in a process of its own, and every result is one line of a file. An interrupted
run goes on where it stopped. timm's networks need timm.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from onnxprune.channels.groups import ChannelGroups, find_groups
from onnxprune.graph.graph import Graph
from onnxprune.surgery.cost import Costs, find_costs
from onnxprune.surgery.masking import mask
from onnxprune.surgery.removal import remove_channels
from tests.support.exports import EXPORTERS
from tests.support.halving import EXACT, ORDERS, coverage, difference, half_of_every_group, order_of
from tests.support.networks import build, made_here, size_of

DEFAULT_EXPORTS = ("classic-11", "classic-13", "classic-17", "classic-13-batchnorm", "dynamo")

SEEN = 1e-3
"""Removing half of the filters must change the output by this, relative to the largest value."""

TORCHVISION = (
    "alexnet vgg16 vgg16_bn resnet18 resnet50 wide_resnet50_2 resnext50_32x4d densenet121 "
    "googlenet inception_v3 squeezenet1_1 mobilenet_v2 mobilenet_v3_large mnasnet1_0 "
    "efficientnet_b0 efficientnet_v2_s regnet_x_400mf regnet_y_400mf shufflenet_v2_x1_0 "
    "convnext_tiny deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large fcn_resnet50 "
    "retinanet_resnet50_fpn ssdlite320_mobilenet_v3_large"
).split()

TIMM = (
    "ghostnet_100 res2net50_26w_4s cspresnet50 hrnet_w18_small dla34 skresnet18 resnest14d "
    "mobilenetv4_conv_small ese_vovnet39b"
).split()

OTHERS = (
    "repvgg_a0 mobileone_s0 fastvit_t8 efficientnet_lite0 mixnet_s tf_efficientnet_b0 tinynet_e "
    "dpn68 xception41 inception_v4 inception_resnet_v2 nasnetalarge pnasnet5large rexnet_100 "
    "selecsls42b hardcorenas_a lcnet_050 gernet_s resnetrs50 eca_resnet33ts resnet50_gn "
    "bat_resnext26ts lambda_resnet26t halonet26t botnet26t_256 edgenext_xx_small repghostnet_050 "
    "levit_128s legacy_seresnet18 gcresnet33ts gcresnext26ts tresnet_m convnextv2_atto nfnet_f0 "
    "nf_resnet26 spnasnet_100 fbnetc_100 hgnetv2_b0 starnet_s1 inception_next_tiny "
    "mobilevit_xxs darknet53 cspdarknet53 visformer_tiny resnetv2_50 resnetv2_50x1_bit "
    "efficientvit_b0 ghostnetv2_100 regnetz_b16 seresnext26d_32x4d resnet26d resnetblur50 "
    "skresnext50_32x4d resnest26d res2next50 hrnet_w18_small_v2 dla46x_c ese_vovnet19b_dw "
    "mobilenetv3_small_050 mobilenetv4_hybrid_medium efficientformer_l1 poolformer_s12 "
    "repvit_m0_9 vgg11_bn coatnet_nano_rw_224 fasternet_t0 ghostnetv3_050 cs3darknet_focus_s "
    "lcnetv2_small cspnext_s sedarknet21 shvit_s1 mobilevitv2_050 mambaout_femto resnet51q "
    "hgnet_tiny dla60_res2net densenetblur121d lowformer_b0 swiftformer_xs resnet10t tf_mixnet_s "
    "mobilenetv1_100 efficientvit_m0 cpubone_b0_bfrobust xception41p regnetv_040"
).split()
"""Networks of the same kinds, on which nothing was developed: an unseen test."""


def networks(which: str) -> list[str]:
    """Return the names in a list: `listed`, `own`, `others` or `all`."""
    mine, others = list(made_here("own")), [f"timm/{name}" for name in OTHERS]
    listed = [*TORCHVISION, *(f"timm/{name}" for name in TIMM), *mine]
    return {"listed": listed, "own": mine, "others": others, "all": listed + others}[which]


def exported(name: str, export: str, models: Path | None) -> onnx.ModelProto:
    """Export a network, or load it from the folder `models` if it is there."""
    path = models / f"{name.replace('/', '-')}.{export}.onnx" if models else None
    if path is not None and path.exists():
        return onnx.load(path)
    model = EXPORTERS[export](build(name), name, size_of(name))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)
    return model


def measure(name: str, export: str, models: Path | None = None) -> dict[str, Any]:
    """Export and analyse one network, and remove half of it.

    Units: `*_removed`, shares of the original; `*_s`, CPU seconds.
    """
    row: dict[str, Any] = {"network": name, "export": export, "problem": None}
    try:
        model = exported(name, export, models)
    except Exception as error:  # exporters and constructors raise anything
        return row | {"problem": f"export: {_line(error)}"}
    try:
        start = time.process_time()
        graph = Graph(model)
        groups = find_groups(graph)
        row["analysis_s"] = time.process_time() - start
        costs = find_costs(graph, groups)
        found = coverage(graph, groups, costs)
        row |= {
            "nodes": len(graph.nodes),
            "filters": found.filters,
            "removable": found.removable,
            "share": found.share,
            "undefined": dict(found.undefined.most_common()),
            "avoidable": dict(found.avoidable.most_common()),
        }
        return row | halve(graph, groups, costs)
    except Exception as error:
        return row | {"problem": f"{type(error).__name__}: {_line(error)}"}


def halve(graph: Graph, groups: ChannelGroups, costs: Costs) -> dict[str, Any]:
    """Remove half of the filters twice, in both orders of `ORDERS`.

    `error` is the larger distance of the pruned to the masked network. `effect` is the smaller
    distance of the masked to the original network. Shares are those of the last order, `random`.
    Units: distances are relative to the largest output.
    """
    found: dict[str, Any] = {"error": 0.0, "effect": float("inf")}
    full = costs.of()
    for how in ORDERS:
        dead = half_of_every_group(groups, order_of(graph, groups, how, seed=0))
        start = time.process_time()
        small = remove_channels(graph, groups, dead)
        found["surgery_s"] = time.process_time() - start
        onnx.checker.check_model(small, full_check=True)
        zeroed = mask(graph, groups, dead)
        error = difference(small, zeroed)
        found["effect"] = min(found["effect"], difference(zeroed, graph.model))
        if found["effect"] < SEEN and dead.any():
            found["problem"] = (
                f"{how}: removing half hardly changes the output, so this shows nothing"
            )
        if not error <= EXACT:
            found["problem"] = f"{how}: the pruned model differs from the masked one"
        found["error"] = max(found["error"], error)
        left = costs.of(dead)
        found |= {
            "filters_removed": 1 - left.filters / full.filters,
            "params_removed": 1 - left.params / full.params,
            "macs_removed": 1 - left.macs / full.macs,
        }
    return found


def run_one(name: str, exports: Iterable[str], output: Path, models: Path | None = None) -> None:
    """Measure one network in this process, and append a line for each export to the file."""
    import torch

    torch.set_num_threads(1)
    onnxruntime.set_default_logger_severity(3)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    for export in exports:
        row = measure(name, export, models)
        with output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(summary(row), flush=True)


def summary(row: Mapping[str, Any]) -> str:
    """Return one result as a line of text."""
    head = f"{row['network']:34} {row['export']:21}"
    if "error" not in row:
        return f"{head} {row['problem']}"
    figures = (
        f"{row['nodes']:5} nodes {row['share']:7.1%} of {row['filters']:6}  "
        f"params -{row['params_removed']:.0%} macs -{row['macs_removed']:.0%}  "
        f"{row['analysis_s']:.2f} + {row['surgery_s']:.2f} s  {row['error']:.1e}"
    )
    why = "; ".join(f"{count} {reason}" for reason, count in row["avoidable"].items())
    return f"{head} {figures}  {row['problem'] or ''} {why[:200]}"


def read(output: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Read the newest result of every network and export."""
    if not output.exists():
        return {}
    rows = map(json.loads, output.read_text(encoding="utf-8").splitlines())
    return {(row["network"], row["export"]): row for row in rows}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table with a row for each network: the worst of its exports."""
    lines = [
        "| network | exports | filters | well defined | removable of those | params | MACs | "
        "error | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["network"] for row in rows):
        mine = [row for row in rows if row["network"] == name]
        run = [row for row in mine if "error" in row]
        lines += [_table_line(name, run)] if run else []
        lines += [
            f"| {name} | {row['export']}: {row['problem'][:120]} |" + " |" * 7
            for row in mine
            if "error" not in row
        ]
    return "\n".join(lines)


def matrix(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table: a row for each network, coverage and error of each export."""
    exports = [e for e in EXPORTERS if any(row["export"] == e for row in rows)]
    lines = [f"| network | filters | {' | '.join(exports)} |", "|---" * (len(exports) + 2) + "|"]
    for name in dict.fromkeys(row["network"] for row in rows):
        mine = {row["export"]: row for row in rows if row["network"] == name}
        cells = [_cell(mine.get(export)) for export in exports]
        counts = {row["filters"] for row in mine.values() if "filters" in row}
        lines.append(f"| {name} | {' or '.join(map(str, sorted(counts)))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "not run"
    if row["problem"]:
        return f"**{row['problem'][:120]}**"
    return f"{row['share']:.1%}, {row['error']:.0e}".replace("100.0%", "100%")


def _table_line(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    worst = min(rows, key=lambda row: row["share"])
    defined = worst["filters"] - sum(worst["undefined"].values())
    seconds = max(row["analysis_s"] + row["surgery_s"] for row in rows)
    exact = sum(row["problem"] is None for row in rows)
    return (
        f"| {name} | {exact}/{len(rows)} | {worst['filters']} | {defined} | "
        f"{worst['share']:.1%} | -{min(r['params_removed'] for r in rows):.0%} | "
        f"-{min(r['macs_removed'] for r in rows):.0%} | {max(r['error'] for r in rows):.0e} | "
        f"{seconds:.2f} |"
    )


def _line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), repr(error))[:300]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.networks")
    parser.add_argument("names", nargs="*", help="networks; those of --list by default")
    parser.add_argument("--list", choices=("listed", "own", "others", "all"), default="listed")
    parser.add_argument("--exports", default=",".join(DEFAULT_EXPORTS))
    parser.add_argument("-o", "--output", type=Path, default=Path("coverage.jsonl"))
    parser.add_argument("--models", type=Path, help="keep exported models in this folder")
    parser.add_argument(
        "--again", action="store_true", help="measure also what the file holds already"
    )
    parser.add_argument("--timeout", type=float, default=1200, help="seconds for one network")
    parser.add_argument("--table", type=Path, help="only print the table of such an output file")
    parser.add_argument("--matrix", type=Path, help="the same, with a column for each export")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.table:
        print(table(list(read(given.table).values())))
        return
    if given.matrix:
        print(matrix(list(read(given.matrix).values())))
        return
    exports = given.exports.split(",")
    for name in given.names or networks(given.list):
        done = {} if given.again or given.one else read(given.output)
        todo = [export for export in exports if (name, export) not in done]
        if given.one:
            run_one(name, exports, given.output, given.models)
        elif todo:
            _run_apart(name, todo, given)


def _run_apart(name: str, exports: Sequence[str], given: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.networks", "--one", name]
    command += ["--exports", ",".join(exports), "-o", str(given.output)]
    command += ["--models", str(given.models)] if given.models else []
    try:
        code = subprocess.run(command, timeout=given.timeout, check=False).returncode
        if code:
            print(f"{name}: exit status {code}", flush=True)
    except subprocess.TimeoutExpired:
        print(f"{name}: not done in {given.timeout:.0f} s", flush=True)


if __name__ == "__main__":
    main()
