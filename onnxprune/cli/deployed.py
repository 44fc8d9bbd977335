"""The table of what was deployed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from onnxprune.cli.tables import empty_table
from onnxprune.deploy import called
from onnxprune.deploy import remarks as int8_remarks
from onnxprune.evaluation import caption
from onnxprune.report import percent

if TYPE_CHECKING:
    from rich.table import Table

NONE = "\u2013"


def deployed_table(record: Mapping[str, Any]) -> Table:
    """Return a row for each runtime, and what the model is before it is deployed."""
    metric = record["metric"]
    scores = [] if metric is None else [f"mean {caption(metric)}", "harmonic"]
    table = empty_table("runtime", "MB", "ms", "of onnxruntime", "max error (relative)", *scores)
    for row in record["rows"]:
        table.add_row(
            called(row),
            NONE if row["size_bytes"] is None else f"{row['size_bytes'] * 1e-6:.3g}",
            NONE if row["latency_ms"] is None else f"{row['latency_ms']:.3g}",
            _ratio(row),
            _error(row),
            *_scores(row["accuracy"], len(scores)),
        )
    return table


def remarks(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield what there is to say under the table."""
    if record["accuracy"] is None:
        yield "no samples: inputs were made up, and accuracy was not measured"
    else:
        found = record["accuracy"]
        yield (
            f"the model itself on onnxruntime: mean {percent(found['mean'])}, harmonic mean "
            f"{percent(found['harmonic'])} of {record['samples']:,} samples"
        )
    for told in record["int8"]:
        yield from int8_remarks(told)
    for row in record["rows"]:
        if row["reason"]:
            yield f"{called(row)}: {row['reason']}"


def _ratio(row: Mapping[str, Any]) -> str:
    if not row["latency_ms"] or not row["onnxruntime_ms"]:
        return NONE
    return f"{row['latency_ms'] / row['onnxruntime_ms']:.2f}\u00d7"


def _error(row: Mapping[str, Any]) -> str:
    if row["max_error"] is None:
        return str(row["status"])
    wrong = "" if row["status"] == "done" else f" {row['status'].upper()}"
    return f"{row['max_error']:.1e} ({row['relative_error']:.0e}){wrong}"


def _scores(accuracy: Mapping[str, Any] | None, count: int) -> list[str]:
    if accuracy is None:
        return [NONE] * count
    return [percent(accuracy[name]) for name in ("mean", "harmonic")][:count]
