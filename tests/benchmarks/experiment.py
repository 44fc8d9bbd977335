"""Build a few-shot experiment: a frozen network learns new classes from few labelled images.

The features stay frozen; a linear head learns the classes of the reference images. The folder of an
experiment holds what `onnxprune curve` needs: `model.onnx`, which takes images in 0..1, and the
drawn images as `reference/<class>/*.png` and `test/<class>/*.png`.
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
    """Which classes, how many images of each, and how the head learns from them.

    If `classes` is empty, all classes of the reference images are drawn. `penalty` is the L2
    penalty of the head.
    """

    classes: tuple[str, ...] = ()
    per_class: int = 20
    test_per_class: int = 40
    penalty: float = 0.1
    seed: int = 0
    threads: int = 2


def refuse_mixture(output: Path) -> None:
    """Refuse a folder that already holds the images of an experiment."""
    for name in ("reference", "test"):
        if (output / name).exists():
            raise click.UsageError(f"{output / name} exists already; name another --output")


def make_experiment(
    features: onnx.ModelProto, reference: Pictures, test: Pictures, chosen: Draw, output: Path
) -> None:
    """Draw the images, fit the head, and write the model and both folders of images.

    Shapes: features, a model image [batch, 1 or 3, size, size] in 0..1 -> [batch, F].
    """
    refuse_mixture(output)
    # onnxprune numbers the classes of a folder in alphabetical order, so the head must too
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
    """Return the sentence that says how to go on with the folder."""
    folder = shlex.quote(str(output))
    return (
        f"next: onnxprune curve {folder}/model.onnx --data {folder}/reference "
        f"--test {folder}/test --preprocess unit --method accuracy-aware/lrp "
        f"--method one-shot/lrp --method one-shot/magnitude -o {folder}/curve"
    )


def draw_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `Draw` and `--output` to a command, which gets `chosen` and `output`."""

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
    """Add the options `--reference` and `--test` to a command: tars or folders of images."""
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
