"""A few-shot experiment: a frozen network learns new classes from few labelled images.

The network's features stay as they are; a linear head learns the classes of the reference images.
A folder receives `model.onnx`, which takes images in 0..1, and the chosen images as
`reference/<class>/*.png` and `test/<class>/*.png`: all that `onnxprune curve` needs.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

from tests.benchmarks.linear_head import attach_head, fit_head, run
from tests.benchmarks.pictures import Picture, draw, to_arrays, write_pictures

Pictures = Mapping[str, Sequence[Picture]]


@dataclass(frozen=True)
class Draw:
    """Which images, how many of each class, and how the head learns from them.

    No classes are all classes of the reference pictures; `penalty` is the head's L2 penalty.
    """

    classes: tuple[str, ...] = ()
    per_class: int = 20
    test_per_class: int = 40
    penalty: float = 0.1
    seed: int = 0
    threads: int = 2


def refuse_mixture(output: Path) -> None:
    """Refuse a folder that holds the images of another experiment."""
    for name in ("reference", "test"):
        if (output / name).exists():
            raise click.UsageError(f"{output / name} exists already; name another --output")


def make_experiment(
    features: onnx.ModelProto, reference: Pictures, test: Pictures, chosen: Draw, output: Path
) -> None:
    """Draw the images, fit the head, and write the model and both folders.

    Shapes: features, a model image [batch, 1 or 3, size, size] in 0..1 -> [batch, F].
    """
    refuse_mixture(output)
    # a folder's labels are its classes in alphabetical order, so the head's must be, too
    names = sorted(set(chosen.classes) or reference)
    if len(names) < 2:
        raise click.UsageError(f"a classifier needs two classes or more, not {', '.join(names)}")
    rng = np.random.default_rng(chosen.seed)
    references = draw(reference, names, chosen.per_class, rng)
    tests = draw(test, names, chosen.test_per_class, rng)

    _, channels, size, _ = features.graph.input[0].type.tensor_type.shape.dim

    def arrays(pictures: Pictures) -> Any:
        return to_arrays(pictures, size.dim_value, channels=channels.dim_value)

    images, labels = arrays(references)
    values = run(features, images, threads=chosen.threads)
    model = attach_head(features, fit_head(values, labels, chosen.penalty))

    output.mkdir(parents=True, exist_ok=True)
    write_pictures(references, output / "reference")
    write_pictures(tests, output / "test")
    path = output / "model.onnx"
    onnx.save(model, path)
    click.echo(f"wrote {path}: {len(names)} classes ({', '.join(names)})")
    for kind, pictures in (("reference", references), ("test", tests)):
        images, labels = arrays(pictures)
        right = run(model, images, threads=chosen.threads).argmax(1) == labels
        click.echo(f"{kind} accuracy {right.mean():.4f} on {len(labels)} images")


def next_step(output: Path) -> str:
    """What to do with the folder."""
    folder = shlex.quote(str(output))
    return (
        f"next: onnxprune curve {folder}/model.onnx --data {folder}/reference "
        f"--test {folder}/test --preprocess unit --method accuracy-aware/lrp "
        f"--method one-shot/lrp --method one-shot/magnitude -o {folder}/curve"
    )


def draw_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a program the options of `Draw` and `--output`; it receives `chosen` and `output`."""

    def wrapped(classes: str | None, output: Path, **options: Any) -> Any:
        own = {name: options.pop(name) for name in Draw.__dataclass_fields__ if name in options}
        names = tuple(name.strip() for name in classes.split(",")) if classes else ()
        return command(chosen=Draw(classes=names, **own), output=output, **options)

    count = click.IntRange(min=1)
    for option in reversed(
        (
            click.option("--classes", help="Names, separated by commas.  [default: all]"),
            click.option("--per-class", type=count, default=20, show_default=True),
            click.option("--test-per-class", type=count, default=40, show_default=True),
            click.option(
                "--penalty",
                type=click.FloatRange(min=0, min_open=True),
                default=0.1,
                show_default=True,
                help="L2 penalty of the head; more gives softer probabilities.",
            ),
            click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
            click.option("--threads", type=count, default=2, show_default=True),
            click.option(
                "-o",
                "--output",
                type=click.Path(file_okay=False, path_type=Path),
                required=True,
                help="Folder for model.onnx, reference/ and test/; must not hold images yet.",
            ),
        )
    ):
        wrapped = option(wrapped)
    wrapped.__doc__ = command.__doc__
    return wrapped


def picture_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a program the options `--reference` and `--test`: tars or folders of images."""
    place = click.Path(exists=True, path_type=Path)
    test = click.option(
        "--test", type=place, required=True, help="The same for the images that judge."
    )
    reference = click.option(
        "--reference",
        type=place,
        required=True,
        help="Tar or folder to draw the few labelled images from, one folder per class.",
    )
    return reference(test(command))  # type: ignore[no-any-return]
