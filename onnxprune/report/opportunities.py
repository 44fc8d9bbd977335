"""What a run could still gain, and how: each with an estimate and the options that try it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from onnxprune.evaluation import caption
from onnxprune.report.figures import MULTIPLE, SLOWER, amount, percent
from onnxprune.report.record import Record

MOST = 4
"""Groups that stay, of which each has an entry."""
WORTH = 0.01
"""Share of a figure below which a gain is not worth a line."""
TELLS = 0.01
"""Half the width of an interval that tells most that people ask: one point."""


@dataclass(frozen=True)
class Opportunity:
    """One thing to try: what it may gain, how that is estimated, and the options."""

    title: str
    gain: str
    why: str
    how: str = ""


def opportunities(run: Record) -> list[Opportunity]:
    """Return what a finished run could still gain, the surest first."""
    if run.report is None:
        return []
    return [*_widths(run, run.report), *_pinned(run), *_dense(run), *_int8(run.report), *_data(run)]


def _widths(run: Record, report: Mapping[str, Any]) -> Iterator[Opportunity]:
    """Widths that runtimes compute slowly."""
    left = [one["filters"] - one["removed"] for one in report.get("layers", ()) if one["removed"]]
    uneven = sum(width % MULTIPLE > 0 for width in left)
    before, after = report["before"], report["after"]
    times = [side.get("latency_ms") for side in (before, after)]
    if not uneven:
        return
    why = (
        f"{uneven} of {len(left)} pruned layers have a width that is no multiple of {MULTIPLE}, "
        f"which runtimes compute as slowly as the next multiple or slower."
    )
    gain = "latency"
    if all(times) and before.get("macs") and after.get("macs"):
        by_macs = times[0] * after["macs"] / before["macs"]
        share = 1 - by_macs / times[1]
        if share <= WORTH:
            return
        slower = " It is slower than before now." if times[1] > SLOWER * times[0] else ""
        gain = f"up to {100 * share:.0f} % of the latency"
        why += f"{slower} Estimated by the multiply-adds that are left."
    asked = run.settings.get("limits", {}).get("round_to")
    how = f"--round-to {MULTIPLE}" if asked in ("auto", MULTIPLE) else "--round-to auto"
    yield Opportunity("Round the widths", gain, why, how)


def _pinned(run: Record) -> Iterator[Opportunity]:
    """Groups that stay, wholly or in part, and what would free them."""
    network = run.about.get("network", {})
    costs = run.evidence.get("layers", {})
    whole = sum((one.get("macs") or [0])[0] for one in costs.values())
    found = []
    for number, group in enumerate(network.get("groups", ())):
        layers = [one for one in network["layers"] if one["group"] == number]
        macs = sum((costs.get(one["name"], {}).get("macs") or [0])[0] for one in layers)
        for reason in group["reasons"]:
            share = reason["channels"] / max(group["channels"], 1) * macs / max(whole, 1)
            found.append((share, group, reason, layers))
    found.sort(key=lambda one: -one[0])
    for share, group, reason, layers in found[:MOST]:
        if share < WORTH:
            continue
        more = f" and {len(layers) - 1} tied to it" if len(layers) > 1 else ""
        how = f"--allow-inexact {reason['lift']}" if reason["lift"] else ""
        yield Opportunity(
            f"Free {group['title']}{more}",
            f"up to {percent(share)} of the MACs lie there",
            f"{reason['channels']:,} of {group['channels']:,} channels stay: {reason['text']}."
            + (
                ""
                if how
                else " No option lifts this: the network would have to be built otherwise."
            ),
            how,
        )


def _dense(run: Record) -> Iterator[Opportunity]:
    """Dense layers whose units stay only because nobody asked."""
    layers = run.about.get("network", {}).get("dense", ())
    params = sum(one["params"] for one in layers)
    left = (run.report or {})["after"]["params"]
    if not params or params < WORTH * left:
        return
    saved = int(params * (run.rate or 0.5))
    yield Opportunity(
        "Prune the dense layers, too",
        f"about {amount(saved)} parameters",
        f"{len(layers)} dense layers hold {amount(params)} parameters, and none of their units may "
        f"go. Estimated at the rate of this run.",
        "--also dense",
    )


def _int8(report: Mapping[str, Any]) -> Iterator[Opportunity]:
    """A file of bytes in place of floats."""
    size = report["after"].get("size_bytes")
    if not size or size < 3 * report["after"]["params"]:
        return
    saved = 0.75 * min(4 * report["after"]["params"], size)
    yield Opportunity(
        "Quantise to INT8",
        f"about {100 * saved / size:.0f} % of the file",
        "Weights of one byte in place of four, and often two to three times the speed where the "
        "processor has instructions for it.",
        "onnxprune deploy small.onnx --to onnxruntime --int8 --calibrate REF --data TEST -o edge/",
    )


def _data(run: Record) -> Iterator[Opportunity]:
    """More samples, which say more."""
    interval, what = run.evidence.get("interval"), caption(run.metric)
    if run.report is not None and not run.report["samples"]:
        yield Opportunity(
            "Give reference samples",
            "a measured accuracy",
            "Without samples filters are chosen by their weights alone, and nothing is measured.",
            "--data REF",
        )
    if not interval:
        return
    half, count = (interval["high"] - interval["low"]) / 2, interval["samples"]
    if half > TELLS:
        needed = float(f"{count * (half / TELLS) ** 2:.2g}")
        yield Opportunity(
            "Measure on more samples",
            f"{what} to \u00b11 point",
            f"{count:,} samples tell the change of {what} to \u00b1{100 * half:.1f} points; about "
            f"{needed:,.0f} would tell it to \u00b11.",
            "--data with more samples",
        )
