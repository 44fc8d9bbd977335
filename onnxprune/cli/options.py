"""The options that several commands share, with their units; defaults are those of `Settings`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from onnxprune.cli.program import Screen
from onnxprune.compensate import METHODS
from onnxprune.data import PRESETS
from onnxprune.evaluation import METRIC_NAMES
from onnxprune.relevance import CRITERION_NAMES
from onnxprune.search import AUTO, CONTROLLERS, Limits, Settings

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Function], Function]


class Number(click.FloatRange):
    """A number in a range; unlike its parent it takes no NaN."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or refuse it."""
        found = float(super().convert(value, param, ctx))
        if math.isnan(found):
            self.fail(f"{value!r} is not a number", param, ctx)
        return found


def _sizes(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Read the shape of one sample, such as 3,224,224."""
    try:
        return None if value is None else tuple(int(size) for size in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r}; expected sizes such as 3,224,224") from error


SHARE = Number(0, 1)
POSITIVE_SHARE = Number(0, 1, min_open=True)
POSITIVE = Number(0, min_open=True)
FILE = click.Path()


def together(*options: Decorator[Any]) -> Decorator[Any]:
    """Return one decorator for several options, which the help lists in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def example(*lines: str) -> str:
    """Return the epilog of a help text, which keeps its lines."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def _set_volume(ctx: click.Context, param: click.Parameter, value: int | bool) -> None:
    screen = ctx.ensure_object(Screen)
    if param.name == "quiet" and value:
        screen.set_volume(-1)
    elif param.name == "verbose" and not (screen.volume < 0 and not value):
        screen.set_volume(int(value))


VOLUME = together(
    click.option(
        "-v",
        "--verbose",
        count=True,
        expose_value=False,
        callback=_set_volume,
        help="Say more; -vv shows details and where an error came from.",
    ),
    click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_set_volume,
        help="Say nothing but errors.",
    ),
)

LATENCY_BATCH = click.option(
    "--latency-batch",
    type=click.IntRange(1),
    default=Settings.latency_batch,
    show_default=True,
    help="Samples in a batch whose latency is measured.",
)

DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default=Settings.device,
    show_default=True,
    help="Where to compute; auto takes a GPU where there is one.",
)

SEED = click.option(
    "--seed", type=int, default=Settings.seed, show_default=True, help="Seed of all randomness."
)

RUNNING = together(
    DEVICE,
    SEED,
    click.option(
        "--threads",
        type=click.IntRange(0),
        default=Settings.threads,
        help="CPU threads; 0, the default, takes all cores.",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(1),
        default=Settings.batch_size,
        show_default=True,
        help="Samples computed at once.",
    ),
    click.option(
        "--preprocess",
        type=click.Choice(["auto", *PRESETS]),
        default=Settings.preprocess,
        show_default=True,
        help="What images become; auto is imagenet for three channels, unit (0 to 1) for one.",
    ),
    click.option(
        "--per-class",
        type=click.IntRange(1),
        default=None,
        metavar="N",
        help="Use at most N samples of each class.",
    ),
    VOLUME,
)

WORK = together(
    RUNNING,
    click.option(
        "--memory",
        type=click.IntRange(1),
        default=Settings.memory,
        metavar="MB",
        help="For the activations of the samples that relevance or least squares computes at "
        "once: fewer samples where they do not fit. By default a quarter of what is free.",
    ),
)

CRITERION = click.option(
    "--criterion",
    default=Settings.criterion,
    show_default=True,
    metavar="NAME",
    help=f"What filters are ranked by: {', '.join(CRITERION_NAMES)}; see docs/method.md.",
)

METRIC = click.option(
    "--metric",
    default=Settings.metric,
    show_default=True,
    metavar="NAME",
    help=f"What is measured of each class: {', '.join(METRIC_NAMES)}; see docs/reference.md.",
)

UNLABELLED = click.option(
    "--unlabelled",
    default=Settings.unlabelled,
    metavar="DIR",
    help="More images, in any order and without labels, for least squares to fit on.",
)

METHOD = together(
    click.option(
        "--control",
        type=click.Choice(list(CONTROLLERS)),
        default=Settings.control,
        show_default=True,
        help="How filters are chosen, step by step.",
    ),
    CRITERION,
    click.option(
        "--compensate",
        type=click.Choice((AUTO, *METHODS)),
        default=Settings.compensate,
        show_default=True,
        help="How weights after removed filters are corrected, once that helps: none leaves "
        "them as they were, auto is least-squares where there are samples.",
    ),
    UNLABELLED,
    METRIC,
)

TARGET = together(
    click.option(
        "--rate", type=POSITIVE_SHARE, help="Stop when this share of the removable filters is gone."
    ),
    click.option(
        "--params",
        type=POSITIVE,
        help="Stop at this share of the parameters (up to 1), or at this many (above 1).",
    ),
    click.option(
        "--macs",
        type=POSITIVE,
        help="Stop at this share of the multiply-adds (up to 1), or at this many (above 1).",
    ),
    click.option(
        "--size",
        type=POSITIVE,
        help="Stop at this share of the file's bytes (up to 1), or at this many (above 1).",
    ),
    click.option(
        "--latency-ms",
        type=POSITIVE,
        help="Stop at this latency on onnxruntime, measured with --threads and --latency-batch.",
    ),
    LATENCY_BATCH,
)

FLOOR = together(
    click.option(
        "--min-accuracy",
        type=SHARE,
        help="Never fall under this harmonic mean of the class accuracies.",
    ),
    click.option(
        "--max-drop",
        type=SHARE,
        help="Never lose more than this of the harmonic mean; 0.01 where neither target nor floor "
        "is given.",
    ),
)


def _names(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """Read names with commas between them."""
    return tuple(name.strip() for name in value.split(",") if name.strip())


ALLOW_INEXACT = click.option(
    "--allow-inexact",
    default="",
    callback=_names,
    metavar="OPERATORS",
    help="Prune through operators that mix channels, as in layernorm,groupnorm; the report names "
    "each node.",
)

LIMITS = together(
    click.option(
        "--min-channels",
        type=click.IntRange(1),
        default=Limits.min_channels,
        show_default=True,
        help="Leave every layer at least so many channels.",
    ),
    click.option(
        "--max-layer-rate",
        type=SHARE,
        default=Limits.max_layer_rate,
        show_default=True,
        help="Remove at most this share of any layer.",
    ),
    click.option(
        "--include",
        multiple=True,
        metavar="PATTERN",
        help="Touch only convolutions with such a name, as in 'layer3.*'; repeatable.",
    ),
    click.option(
        "--exclude",
        multiple=True,
        metavar="PATTERN",
        help="Spare convolutions with such a name; repeatable.",
    ),
    click.option(
        "--round-to",
        type=click.IntRange(1),
        default=Limits.round_to,
        show_default=True,
        metavar="N",
        help="Leave widths at multiples of N, as in 8, which runtimes compute faster.",
    ),
    ALLOW_INEXACT,
)

DATA = click.option(
    "--data", metavar="REF", help="Reference samples: a folder, .npz or module:function."
)

CONVERSION = together(
    click.option(
        "--from",
        "framework",
        required=True,
        metavar="NAME",
        help="pytorch, torchvision, or your own module:function.",
    ),
    click.option(
        "--input-shape",
        callback=_sizes,
        metavar="C,H,W",
        help="Shape of one sample, without the batch axis.",
    ),
    click.option("--weights", help="A file with a state dict, or a name that torchvision knows."),
    click.option("--opset", type=click.IntRange(7), help="ONNX operator set; the exporter's own."),
    click.option(
        "--fixed-batch", is_flag=True, help="Fix the batch to 1 in place of leaving it open."
    ),
    click.option(
        "--exporter",
        type=click.Choice(["dynamo", "classic"]),
        default="dynamo",
        show_default=True,
        help="Which of torch's exporters.",
    ),
    click.option("--keep-batchnorm", is_flag=True, help="Do not fold batch normalisation."),
)
