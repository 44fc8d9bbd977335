"""About a run: its model, samples, machine and versions, the command to repeat it, and its network.

A run directory keeps it as `about.json`, for the page.
"""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from onnxprune.checks import Names, Pairs
from onnxprune.data import SampleSource
from onnxprune.graph import ModelSource
from onnxprune.search.control import Control
from onnxprune.search.settings import OPTIONS, Settings
from onnxprune.search.task import Task

PACKAGES = ("onnxprune", "onnx", "onnxruntime", "onnxruntime-gpu", "torch", "numpy")
FLAGS = {"aim": "for", "input_shapes": "input-shape"}
"""Options of the command line that have another name there."""


def about_run(
    task: Task, model: ModelSource, data: SampleSource | None, settings: Settings, run_dir: Path
) -> dict[str, Any]:
    """Return what `about.json` holds."""
    from onnxprune.report import network_of

    proto = task.graph.model
    return {
        "model": {
            "name": Path(model).stem
            if isinstance(model, (str, Path))
            else proto.graph.name or "model",
            "path": _place(model),
            "inputs": {name: _sizes(task, name) for name in task.graph.inputs},
            "outputs": list(task.graph.outputs),
            "opset": max((one.version for one in proto.opset_import), default=0),
            "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
        },
        "data": _place(data),
        "unlabelled": settings.unlabelled,
        "folder": str(Path.cwd()),
        "command": command(model, data, settings, run_dir),
        "started": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": dict(versions()),
        "machine": machine(),
        "threads": {"torch": 1, "onnxruntime": settings.threads or os.cpu_count()},
        "network": network_of(task.graph, task.groups),
    }


def _place(source: Any) -> str | None:
    """The path of what came from a file or folder, or the name of what makes samples."""
    return str(source) if isinstance(source, (str, Path)) else None


def _sizes(task: Task, name: str) -> list[int | None]:
    return list(task.graph.shape(name) or ())


def versions() -> Iterator[tuple[str, str]]:
    """Yield the packages that a result depends on, those that are installed, and their versions."""
    from importlib.metadata import PackageNotFoundError, version

    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue
    yield "python", platform.python_version()


def machine() -> dict[str, Any]:
    """Return the processor, its cores and the system."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if "model name" in line]
        name = models[0] if models else name
    except OSError:
        pass
    return {"processor": name, "cores": os.cpu_count(), "system": platform.platform(terse=True)}


def command(
    model: ModelSource, data: SampleSource | None, settings: Settings, run_dir: Path
) -> str:
    """Return the command that repeats a run: what its settings change of the defaults.

    What did not come from a file is `MODEL`, or `REF`.
    """
    words = ["onnxprune", "prune", _place(model) or "MODEL", "-o", "small.onnx"]
    if data is not None:
        words += ["--data", _place(data) or "REF"]
    for name, field in OPTIONS.items():
        value = _flat(settings)[name]
        if value != field.default:
            words += _option(name, value)
    return shlex.join([*words, "--run-dir", f"{run_dir}-again"])


def _flat(settings: Settings) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.to_json().items():
        found |= value if isinstance(value, dict) else {name: value}
    return found


TUNING = tuple(Control.__dataclass_fields__)


def _option(name: str, value: Any) -> Iterator[str]:
    flag = f"--{FLAGS.get(name, name.replace('_', '-'))}"
    rule = OPTIONS[name].metadata["rule"]
    if name in TUNING:
        yield from ("--set", f"{name}={value}")
    elif value is True:
        yield flag
    elif not isinstance(value, (tuple, list)):
        yield from (flag, str(value))
    elif isinstance(rule, Names) and rule.commas:
        yield from (flag, ",".join(map(str, value)))
    else:
        for one in value:
            yield from (flag, _pair(one, rule))


def _pair(one: Any, rule: Any) -> str:
    """A name, or a name with sizes or a share, as an option takes it."""
    if not isinstance(rule, Pairs):
        return str(one)
    name, given = one
    sizes = isinstance(given, (tuple, list))
    return f"{name}{rule.between}{','.join(map(str, given)) if sizes else given}"
