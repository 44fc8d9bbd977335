"""Tables and plots of many curves: means and standard deviations over seeds, gains over baselines.

A record is the curve that `onnxprune curve` writes for a method (`rate`, `mean`, `harmonic`,
`auc_mean`, `auc_harmonic`), with its `task`, `seed`, `name` and `method`, and with `wall` and
`cpu`, the seconds that it took. If the method could not run, it has a `problem` in place of the
curve.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.comparison import LAST_RATE
from onnxprune.report.plots import write_curve_plot
from onnxprune.search.controllers import CONTROLLERS

EARLY = 0.3
"""The rate up to which no accuracy should be lost."""
CONVENTIONAL = "one-shot/lrp:zplus"
"""The first baseline of all gains. The second is one-shot pruning by the method's own rule."""
STEP = 0.05
"""The distance between the rates of a mean curve."""

Record = Mapping[str, Any]
Keyed = dict[tuple[str, int], float]
"""Values by task and seed."""


def early_loss(curve: Record) -> tuple[float, float]:
    """Return how much mean class accuracy is lost up to the rate `EARLY`: on average, at worst."""
    rate, mean = np.array(curve["rate"]), np.array(curve["mean"])
    grid = np.linspace(0, EARLY, round(EARLY / STEP) + 1)[1:]
    loss = mean[0] - np.interp(grid, rate, mean)
    return float(loss.mean()), float(mean[0] - mean[rate <= EARLY + 1e-9].min())


def early_text(curves: Iterable[Record]) -> str:
    """Return the means of `early_loss` over curves, as text."""
    mean, worst = np.mean([early_loss(curve) for curve in curves], axis=0)
    return f"{mean:.3f} ({worst:.3f})"


def share_of_ceiling(curve: Record) -> float:
    """Return the area under a curve, as a share of that of a model that never loses accuracy."""
    return float(curve["auc_mean"] / curve["mean"][0])


def own_baseline(method: str) -> str | None:
    """Return one-shot pruning by a method's own rule, without compensation; None for other tools.

    >>> own_baseline("accuracy-aware/lrp:zplus/least-squares")
    'one-shot/lrp:zplus'
    """
    control, criterion, *_ = method.split("/")
    return f"one-shot/{criterion}" if control in CONTROLLERS else None


@dataclass(frozen=True)
class Comparison:
    """Records of several tasks, methods and seeds."""

    records: Sequence[Record]

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(record["task"] for record in self.records))

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(record["name"] for record in self.records))

    def of(self, task: str) -> "Comparison":
        return Comparison([record for record in self.records if record["task"] == task])

    def curves(self, name: str) -> dict[tuple[str, int], Record]:
        """Return the curves of a method by task and seed; records with a problem have none."""
        return {
            (record["task"], record["seed"]): record
            for record in self.records
            if record["name"] == name and "problem" not in record
        }

    def gains(self, name: str, baseline: str) -> dict[tuple[str, int], float]:
        """Return by what share a method's area exceeds another's, where both have a curve."""
        base = {
            key: record
            for other in self.names
            for key, record in self.curves(other).items()
            if record["method"] == baseline and not record.get("changes")
        }
        return {
            key: record["auc_mean"] / base[key]["auc_mean"] - 1
            for key, record in self.curves(name).items()
            if key in base
        }

    def baselines(self, name: str) -> tuple[str, str | None]:
        """Return the baselines of a method's gains: `CONVENTIONAL`, and its own rule's if drawn."""
        method = next(r["method"] for r in self.records if r["name"] == name)
        own = own_baseline(method)
        drawn = any(record["method"] == own for record in self.records)
        return CONVENTIONAL, own if drawn else None


def spread(values: Iterable[float], scale: float = 1.0, form: str = ".3f") -> str:
    """Return a mean and, of several values, their standard deviation, as text.

    >>> spread([0.1, 0.2]), spread([0.1])
    ('0.150 ± 0.071', '0.100')
    """
    found = np.array(list(values)) * scale
    if not found.size:
        return ""
    mean = f"{found.mean():{form}}"
    return f"{mean} ± {found.std(ddof=1):{form.replace('+', '')}}" if found.size > 1 else mean


def task_table(comparison: Comparison, task: str) -> str:
    """Return a Markdown table of one task, with notes on curves that are missing or end early."""
    own = comparison.of(task)
    seeds = sorted({record["seed"] for record in own.records})
    rows = []
    for name in own.names:
        drawn = list(own.curves(name).values())
        if not drawn:
            continue
        rows.append(
            (
                f"`{name}`",
                spread(curve["auc_mean"] for curve in drawn),
                spread(curve["auc_harmonic"] for curve in drawn),
                *_gains(own, name, _with_spread),
                f"{np.mean([share_of_ceiling(curve) for curve in drawn]):.3f}",
                early_text(drawn),
                f"{np.mean([curve['cpu'] for curve in drawn]):.0f}",
            )
        )
    ceilings = {r["seed"]: r["mean"][0] for r in own.records if "problem" not in r}
    title = f"{task}, {_seeds(seeds)}, ceiling {spread(ceilings.values())}"
    header = (
        *("method", "AUC mean", "AUC harmonic", "over one-shot z+", "over one-shot, own rule"),
        *("of the ceiling", f"lost up to rate {EARLY} (at worst)", "CPU s"),
    )
    return "\n".join((title, "", *_markdown(header, rows), *_notes(own)))


def overall_table(comparison: Comparison) -> str:
    """Return a Markdown table of all tasks and seeds: mean gains, and those on the worst task."""
    rows = []
    for name in comparison.names:
        drawn = comparison.curves(name)
        if not drawn:
            continue
        rows.append(
            (
                f"`{name}`",
                *_gains(comparison, name, _with_worst),
                f"{np.mean([share_of_ceiling(curve) for curve in drawn.values()]):.3f}",
                early_text(drawn.values()),
                str(len({task for task, _ in drawn})),
            )
        )
    header = (
        *("method", "over one-shot z+ (worst task)", "over one-shot, own rule (worst task)"),
        *("of the ceiling", f"lost up to rate {EARLY} (at worst)", "tasks"),
    )
    return "\n".join(("All tasks and seeds", "", *_markdown(header, rows)))


def _gains(comparison: Comparison, name: str, form: Callable[[Keyed], str]) -> tuple[str, str]:
    """Return the gains over both baselines, as text; the second names its rule."""
    conventional, own = comparison.baselines(name)
    first = comparison.gains(name, conventional)
    second = comparison.gains(name, own) if own else {}
    rule = f" (`{own.removeprefix('one-shot/')}`)" if own else ""
    return form(first) if first else "", form(second) + rule if second else ""


def _with_spread(gains: Keyed) -> str:
    return f"{spread(gains.values(), 100, '+.1f')} %"


def _with_worst(gains: Keyed) -> str:
    """Return the mean of the tasks' mean gains, and the lowest of these, as text."""
    by_task: dict[str, list[float]] = {}
    for (task, _), gain in gains.items():
        by_task.setdefault(task, []).append(gain)
    means = [100 * float(np.mean(values)) for values in by_task.values()]
    return f"{np.mean(means):+.1f} % ({min(means):+.1f} %)"


def _notes(comparison: Comparison) -> list[str]:
    notes = []
    for name in comparison.names:
        problems = sorted({r["problem"] for r in comparison.records if _failed(r, name)})
        notes += [f"* `{name}` could not run: {problem}" for problem in problems]
        ends = [max(curve["rate"]) for curve in comparison.curves(name).values()]
        if ends and min(ends) < LAST_RATE - 0.05:
            notes.append(
                f"* `{name}` ends at rate {min(ends):.2f}; its area counts the last accuracy as "
                "kept from there."
            )
    return ["", *notes] if notes else []


def _failed(record: Record, name: str) -> bool:
    return bool(record["name"] == name and "problem" in record)


def _seeds(seeds: Sequence[int]) -> str:
    return f"{len(seeds)} seed{'s' if len(seeds) != 1 else ''}"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def mean_curve(curves: Sequence[Record]) -> dict[str, Any]:
    """Return the mean of curves at common rates, with standard deviations as `mean_spread` etc."""
    rate = np.append(np.arange(0, LAST_RATE, STEP), LAST_RATE)
    found: dict[str, Any] = {"rate": rate.tolist()}
    for kind in ("mean", "harmonic"):
        drawn = np.array([np.interp(rate, curve["rate"], curve[kind]) for curve in curves])
        found[kind] = drawn.mean(0).tolist()
        found[f"{kind}_spread"] = drawn.std(0, ddof=min(len(drawn) - 1, 1)).tolist()
        found[f"auc_{kind}"] = float(np.mean([curve[f"auc_{kind}"] for curve in curves]))
    return found


def write_plot(comparison: Comparison, task: str, folder: Path) -> Path:
    """Plot a task as SVG: each method's mean over seeds, in a band of one standard deviation."""
    own = comparison.of(task)
    drawn = {name: list(own.curves(name).values()) for name in own.names}
    curves = {name: mean_curve(found) for name, found in drawn.items() if found}
    return write_curve_plot(curves, folder / f"{slug(task)}.svg")


def slug(text: str) -> str:
    """Return a file name for a task or a method.

    >>> slug("vgg16/cat,dog:10")
    'vgg16-cat-dog-10'
    """
    return "".join(c if c.isalnum() or c in "._-@" else "-" for c in text)
