"""The steps of a search in TensorBoard, MLflow or Weights & Biases.

    onnxprune.prune(model, data, on_state=callbacks.tensorboard("logs/"))

Each function returns what `prune` takes as `on_state`. Every accepted step is logged with the
names of `figures`, under `prune/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from onnxprune.errors import InvalidValue
from onnxprune.integrations.packages import tool
from onnxprune.run import OnState
from onnxprune.search import State, Task, summary


def figures(task: Task, state: State) -> dict[str, float]:
    """Return what a step came to, by name, without what is not known.

    Units: rate, mean and harmonic from 0 to 1; params, macs and filters, counts.
    """
    found = summary(task, state)
    if state.accuracy is not None:
        found |= {"mean": state.accuracy.mean, "harmonic": state.accuracy.harmonic}
    return {name: float(value) for name, value in found.items() if value is not None}


def tensorboard(writer: Any) -> OnState:
    """Log to a folder, or to a `SummaryWriter` that is open already.

    Raises: MissingPackage without TensorBoard.
    """
    if isinstance(writer, str | Path):
        writer = tool("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(writer))

    def log(found: Mapping[str, float], step: int) -> None:
        for name, value in found.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return _steps(log)


def mlflow() -> OnState:
    """Log to MLflow's active run, which MLflow starts if there is none.

    Raises: MissingPackage without MLflow.
    """
    return _steps(tool("mlflow", "mlflow").log_metrics)


def wandb(run: Any = None) -> OnState:
    """Log to a run of Weights & Biases, by default the one that `wandb.init` started.

    Raises: MissingPackage without the package; InvalidValue where no run was started.
    """
    run = tool("wandb", "wandb").run if run is None else run
    if run is None:
        raise InvalidValue("wandb: has no run; expected one, so call wandb.init(...) first")
    return _steps(lambda found, step: run.log({**found, "prune/step": step}))


def _steps(log: Callable[[dict[str, float], int], object]) -> OnState:
    """What `prune` calls; the last state of a search says why it ended, and is no step."""
    steps = count()

    def on_state(task: Task, state: State) -> None:
        if not state.stopped:
            found = figures(task, state)
            log({f"prune/{name}": value for name, value in found.items()}, next(steps))

    return on_state
