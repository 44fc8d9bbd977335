"""Compare pruning methods over networks, tasks and seeds: the tables of docs/method.md.

    pip install ".[compare]"
    python -m tests.benchmarks.compare_methods --reference reference.tar --test test.tar -o DIR

A task is `NETWORK/CLASSES:PER_CLASS`, such as `vgg16/cat,dog,ship:10` or `resnet-fashion/all:20`:
the network (by default VGG16), the classes that its new head learns, and the number of reference
images of each. For every task and seed, the network's program in this folder builds a model. The
curves are measured on images that no search has seen.

A method is `control/criterion[/compensate]` as for `onnxprune curve`, or a method of another tool
(`tests.benchmarks.peers`), such as `torch-pruning/taylor` or `onnxsim/l2`.
`NAME=METHOD,setting=value` draws a method with other settings, under its own name. Settings are the
fields of `Settings` and of its `Control`.

DIR keeps every curve as JSON, so a stopped run goes on where it was. `--only-tables` prints the
tables of the curves that are there. DIR also receives the tables as `comparison.md` and, for each
task, the mean curves with bands of one standard deviation as SVG.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import onnx

from onnxprune.comparison import draw_curve, parse_method
from onnxprune.errors import OnnxPruneError
from onnxprune.files import write_whole
from onnxprune.search.limits import Limits
from onnxprune.search.settings import Settings
from tests.benchmarks import peers
from tests.benchmarks.comparison import Comparison, overall_table, slug, task_table, write_plot
from tests.benchmarks.comparison_tasks import Sources, Task, source_options
from tests.benchmarks.peers import CannotRun, draw_peer

METHODS = (
    *("one-shot/lrp:zplus", "one-shot/lrp", "one-shot/magnitude", "one-shot/taylor"),
    *("one-shot/activation", "one-shot/geometric-median", "one-shot/random"),
    *("torch-pruning/taylor", "torch-pruning/magnitude", "torch-pruning/fpgm"),
    *("torch-pruning/taylor:uniform", "torch-pruning/magnitude:uniform"),
    *("onnxsim/l1", "onnxsim/l2"),
    "accuracy-aware/lrp",
    "one-shot/random/least-squares",
    "one-shot/lrp/least-squares",
    "accuracy-aware/lrp/least-squares",
)
TASKS = (
    *("vgg16/cat,dog,ship:10", "vgg16/all:20"),
    *("efficientnet-lite0/cat,dog,ship:10", "efficientnet-lite0/all:20"),
    *("resnet-fashion/all:10", "resnet-fashion/all:20"),
)


@dataclass(frozen=True)
class Method:
    """A method with other settings, under a name of its own."""

    name: str
    method: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Method":
        """Read `[NAME=]METHOD[,setting=value...]`. A value is JSON, or else text.

        Raises: click.BadParameter for a setting or a method that does not exist.
        """
        name, equals, rest = text.partition("=")
        if not equals or "/" in name:
            name, rest = text, text
        parts = rest.split(",")
        changes = dict(_change(part) for part in parts if "=" in part)
        found = cls(name, ",".join(part for part in parts if "=" not in part), changes)
        if found.tool and found.method not in peers.METHODS:
            known = ", ".join(peers.METHODS)
            raise click.BadParameter(f"method {found.method!r}: expected one of {known}")
        try:
            found.settings(Settings())
        except OnnxPruneError as error:
            raise click.BadParameter(str(error), param_hint="--method") from error
        return found

    @property
    def tool(self) -> str:
        """The name of the other tool whose method it is, or an empty string."""
        tool = self.method.partition("/")[0]
        return tool if tool in peers.PEERS else ""

    def settings(self, common: Settings) -> Settings:
        """Return the settings that the method is drawn with."""
        changed = common.changed(**self.changes)
        return changed if self.tool else parse_method(self.method, changed)

    def draw(self, folder: Path, settings: Settings) -> dict[str, Any]:
        """Draw the curve on the model and the images of a folder; return it, or its `problem`."""
        model = onnx.load(folder / "model.onnx")
        draw = draw_peer if self.tool else draw_curve
        wall, cpu = time.monotonic(), time.process_time()
        try:
            curve = draw(
                model,
                folder / "reference",
                folder / "test",
                self.method,
                settings.changed(**self.changes),
            )
        except (CannotRun, OnnxPruneError) as error:
            return {"problem": str(error)}
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
        return {**curve.to_json(), "wall": wall, "cpu": cpu}


def _change(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


@dataclass(frozen=True)
class Trial:
    """One task with one seed, which has a folder of its own."""

    task: Task
    seed: int
    output: Path

    @cached_property
    def folder(self) -> Path:
        return self.output / f"{slug(self.task.text)}-{self.seed}"

    def build(self, sources: Sources) -> None:
        """Build the model and the images unless they are there; messages go to standard error."""
        if not (self.folder / "model.onnx").exists():
            with redirect_stdout(sys.stderr):
                self.task.build(sources, self.seed, self.folder)

    def place(self, method: Method) -> Path:
        return self.folder / f"{slug(method.name)}.json"

    def stored(self, method: Method) -> bool:
        """Return True if the curve of a method is stored. A method that could not run has none.

        Raises: click.UsageError when another method's curve has this name.
        """
        if not self.place(method).exists():
            return False
        record = json.loads(self.place(method).read_text("utf-8"))
        drawn = record.get("method"), record.get("changes")
        if drawn != (method.method, method.changes):
            raise click.UsageError(
                f"{self.place(method)} holds {drawn[0]} with {drawn[1]}; give {method.method} "
                "with other settings a name of its own, NAME=METHOD"
            )
        return "problem" not in record

    def draw(self, method: Method, settings: Settings) -> str:
        """Draw and store the curve of a method; return a line that sums it up."""
        found = method.draw(self.folder, replace(settings, seed=self.seed))
        record = {"task": self.task.text, "seed": self.seed, **asdict(method), **found}
        write_whole(self.place(method), json.dumps(record, indent=2) + "\n")
        says = record.get("problem") or "AUC {auc_mean:.3f}, {wall:.0f} s, {cpu:.0f} CPU s".format(
            **record
        )
        return f"{self.task.text} seed {self.seed} {method.name}: {says}"


def _draw(trial: Trial, method: Method, settings: Settings) -> str:
    import torch

    torch.set_num_threads(settings.threads)
    return trial.draw(method, settings)


def draw_all(
    trials: Sequence[Trial], methods: Sequence[Method], settings: Settings, jobs: int
) -> Iterator[str]:
    """Draw the curves that are not stored yet, `jobs` at a time; yield a line for each."""
    missing = [(t, m, settings) for t in trials for m in methods if not t.stored(m)]
    if jobs == 1:
        for job in missing:
            yield _draw(*job)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for done in as_completed([pool.submit(_draw, *job) for job in missing]):
            yield done.result()


def read_records(
    output: Path, tasks: Sequence[str], seeds: Sequence[int], methods: Sequence[str]
) -> list[dict[str, Any]]:
    """Read the stored curves in the order of tasks and methods; an empty list means all."""
    found = [json.loads(path.read_text("utf-8")) for path in sorted(output.glob("*/*.json"))]
    records = [
        record
        for record in found
        if "task" in record
        and (not tasks or record["task"] in tasks)
        and (not seeds or record["seed"] in seeds)
        and (not methods or record["name"] in methods)
    ]
    order = [*methods, *(m for m in METHODS if m not in methods)]

    def place(record: dict[str, Any]) -> tuple[int, int, int]:
        task, name = record["task"], record["name"]
        return (
            tasks.index(task) if task in tasks else len(tasks),
            order.index(name) if name in order else len(order),
            record["seed"],
        )

    return sorted(records, key=place)


def report(records: list[dict[str, Any]], output: Path) -> str:
    """Write the tables and plots of records; return the tables."""
    comparison = Comparison(records)
    tables = [task_table(comparison, task) for task in comparison.tasks]
    if len(tables) > 1:
        tables.append(overall_table(comparison))
    for task in comparison.tasks:
        write_plot(comparison, task, output)
    text = "\n\n".join(tables) + "\n"
    (output / "comparison.md").write_text(text, "utf-8")
    return text


@click.command(help="Draw every method on every task with every seed; print a table for each task.")
@source_options
@click.option("--task", "tasks", multiple=True, help=f"[default: {' '.join(TASKS)}]")
@click.option("--seed", "seeds", multiple=True, type=int, help="[default: 0 1 2]")
@click.option("--method", "methods", multiple=True, help=f"[default: {' '.join(METHODS)}]")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--unlabelled", help="More images for least squares; labels are ignored.")
@click.option("--only-tables", is_flag=True, help="Print what is stored, draw nothing.")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True)
def main(
    tasks: tuple[str, ...],
    seeds: tuple[int, ...],
    methods: tuple[str, ...],
    jobs: int,
    threads: int,
    unlabelled: str | None,
    only_tables: bool,
    output: Path,
    **sources: Any,
) -> None:
    chosen = [Method.parse(text) for text in methods or METHODS]
    if not only_tables:
        given = Sources(**{k: v for k, v in sources.items() if v is not None}, threads=threads)
        names, seeds = tasks or TASKS, seeds or (0, 1, 2)
        trials = [Trial(Task.parse(text), seed, output) for text in names for seed in seeds]
        for trial in trials:
            trial.build(given)
        any_width = Limits(round_to=1)
        settings = Settings(
            preprocess="unit", threads=threads, unlabelled=unlabelled, limits=any_width
        )
        for line in draw_all(trials, chosen, settings, jobs):
            click.echo(line, err=True)
        tasks = tuple(dict.fromkeys(trial.task.text for trial in trials))
    names = [method.name for method in chosen] if methods or not only_tables else []
    records = read_records(output, tasks, seeds, names)
    if not records:
        raise click.ClickException(f"{output} holds no curves of these tasks, seeds and methods")
    click.echo(report(records, output))


if __name__ == "__main__":
    main()
