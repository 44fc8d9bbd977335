"""Plots of accuracy over what is saved, by matplotlib without a display or global state."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.evaluation import caption
from onnxprune.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Colours that colour-blind readers can tell apart. Source: Okabe and Ito 2008, Color universal
design."""
DASHES = ("-", "--", ":", "-.")

SAVED = {
    "rate": "Removed share of the removable filters",
    "macs": "Saved share of the multiply-adds",
    "params": "Saved share of the parameters",
    "latency": "Saved share of the latency",
}
"""What an axis says, by what a curve is drawn over."""

SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "onnxprune", "font.size": 10.0}


def write_curve_plot(
    methods: Mapping[str, Mapping[str, Any]], path: str | Path, metric: str = "top-1"
) -> Path:
    """Write a plot of the curves of `curve.json` as `.svg`, `.png` or `.pdf`.

    A curve with `mean_spread` and `harmonic_spread` gets a band of that width on both sides.
    Raises: OutputError when the place is not writable.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(10, 4.2 + 0.22 * len(methods)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        panels = ((left, "mean", "Mean of the classes"), (right, "harmonic", "Harmonic mean"))
        over = next((curve["over"] for curve in methods.values() if "over" in curve), "rate")
        for axes, kind, title in panels:
            for number, (name, curve) in enumerate(methods.items()):
                colour = COLOURS[number % len(COLOURS)]
                if f"{kind}_spread" in curve:
                    _band(axes, curve, kind, colour)
                axes.plot(
                    curve[over],
                    curve[kind],
                    color=colour,
                    linestyle=DASHES[number // len(COLOURS) % len(DASHES)],
                    marker="o",
                    markersize=3,
                    label=f"{name}  (AUC {curve[f'auc_{kind}']:.3f})",
                )
            axes.set_title(title)
            _frame(axes, "#222222", metric, lowest=0.0, last=1.0, over=over)
            axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0, -0.12))
        right.set_ylabel("")
        picture = io.BytesIO()
        if Path(path).suffix == ".svg":
            picture.write(_svg(figure, header=True).encode())
        else:
            figure.savefig(picture, format=Path(path).suffix[1:], dpi=150)
    return write_whole(path, picture.getvalue())


def _band(axes: Axes, curve: Mapping[str, Any], kind: str, colour: str) -> None:
    pairs = list(zip(curve[kind], curve[f"{kind}_spread"], strict=True))
    low, high = [mean - by for mean, by in pairs], [mean + by for mean, by in pairs]
    axes.fill_between(curve["rate"], low, high, color=colour, alpha=0.15, linewidth=0)


def _frame(
    axes: Axes, ink: str, metric: str, *, lowest: float, last: float, over: str = "rate"
) -> None:
    """Style the axes: labels, ticks, limits and grid."""
    axes.set_xlabel(SAVED[over], color=ink)
    axes.set_ylabel(f"Class {caption(metric)}", color=ink)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")
    axes.tick_params(colors=ink)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(ink)
    axes.set_xlim(0, max(last * 1.02, 0.05))
    axes.set_ylim(max(0.0, lowest - 0.15 * (1 - lowest) - 0.01), 1.0)
    axes.grid(color=ink, alpha=0.12, linewidth=0.8)


def _svg(figure: Figure, *, header: bool = False) -> str:
    """Return a figure as SVG with its text as text, in the reader's font."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=not header, metadata={"Date": None})
    svg = re.sub(r"<metadata>.*?</metadata>", "", text.getvalue(), flags=re.DOTALL)
    svg = svg if header else svg[svg.index("<svg") :]
    return re.sub(r"'?DejaVu Sans'?[^;\"]*", "system-ui, sans-serif", svg)
