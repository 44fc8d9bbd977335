"""The schema of each kind of record."""

from __future__ import annotations

from typing import Any

from onnxprune.records import schemas, shown

SCHEMAS: dict[str, Any] = {
    "config": schemas.Config,
    "step": schemas.Step,
    "state": schemas.State,
    "report": shown.Report,
    "about": shown.About,
    "evidence": shown.Evidence,
    "latency": schemas.Latency,
    "deployed": schemas.Deployment,
    "coco": schemas.Coco,
}
