"""The options that several commands share. Their defaults are those of `Settings`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click

from onnxprune.cli.program import Screen
from onnxprune.cli.types import Convolution, Method, Name, Number, Share
from onnxprune.compensate import METHODS
from onnxprune.converters import CONVERTER_NAMES
from onnxprune.data import PRESETS
from onnxprune.evaluation import METRIC_NAMES
from onnxprune.relevance import CRITERION_NAMES
from onnxprune.search import AUTO, CONTROLLER_NAMES, CONTROLLERS, Control, Limits, Settings

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Function], Function]


def _sizes(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Read the shape of one sample, such as 3,224,224."""
    try:
        return None if value is None else tuple(int(size) for size in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r}; expected sizes such as 3,224,224") from error


FILE = click.Path()
SHARE = Share(0, 1)
SHARE_OR_COUNT = Share(0, min_open=True)


def together(*options: Decorator[Any]) -> Decorator[Any]:
    """Return one decorator for several options."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


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
        help="Print more; -vv prints details, and where an error came from.",
    ),
    click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_set_volume,
        help="Print nothing but errors: no progress, no tables.",
    ),
)

JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON in place of tables, even with --quiet."
)

LATENCY_BATCH = click.option(
    "--latency-batch",
    type=click.IntRange(1),
    default=Settings.latency_batch,
    show_default=True,
    metavar="N",
    help="Batch size at which latency is measured.",
)

DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default=Settings.device,
    show_default=True,
    help="Where to compute; auto takes a GPU if there is one.",
)

SEED = click.option(
    "--seed",
    type=int,
    default=Settings.seed,
    show_default=True,
    metavar="N",
    help="Seed of all random numbers.",
)

RUNNING = together(
    DEVICE,
    SEED,
    click.option(
        "--threads",
        type=click.IntRange(0),
        default=Settings.threads,
        metavar="N",
        help="CPU threads; 0, the default, uses all cores.",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(1),
        default=Settings.batch_size,
        show_default=True,
        metavar="N",
        help="Samples computed at once.",
    ),
    click.option(
        "--preprocess",
        type=click.Choice(["auto", *PRESETS]),
        default=Settings.preprocess,
        show_default=True,
        help="How pixels are scaled; auto is imagenet for three channels, unit (0 to 1) for one.",
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
        help="Memory for activations during relevance and least squares: batches get smaller to "
        "fit. By default a quarter of what is free.",
    ),
)

CRITERION = click.option(
    "--criterion",
    default=Settings.criterion,
    show_default=True,
    type=Name(CRITERION_NAMES),
    metavar="NAME",
    help=f"What ranks the filters: {', '.join(CRITERION_NAMES)}; see docs/method.md.",
)

METRIC = click.option(
    "--metric",
    default=Settings.metric,
    show_default=True,
    type=Name(METRIC_NAMES),
    metavar="NAME",
    help=f"What is measured of each class: {', '.join(METRIC_NAMES)}.",
)

UNLABELLED = click.option(
    "--unlabelled",
    type=FILE,
    default=Settings.unlabelled,
    metavar="DIR",
    help="More images, without labels, for least squares to fit on.",
)


def _set(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> None:
    """Add NAME=VALUE to the other options; a value is JSON, or text as it is."""
    for text in value:
        name, _, given = text.partition("=")
        if name not in TUNING:
            raise click.BadParameter(f"{name!r}: expected one of {', '.join(TUNING)}", ctx, param)
        try:
            ctx.params[name] = json.loads(given)
        except json.JSONDecodeError:
            ctx.params[name] = given


TUNING = tuple(field.name for field in fields(Control))
TUNE = click.option(
    "--set",
    multiple=True,
    expose_value=False,
    callback=_set,
    metavar="NAME=VALUE",
    help="Change a constant of the method, as in harmful=0, which never steps back; repeatable.",
)

METHOD = together(
    click.option(
        "--control",
        type=Name(CONTROLLER_NAMES),
        default=Settings.control,
        show_default=True,
        metavar="NAME",
        help="one-shot: all in one step; iterative: in equal steps; accuracy-aware: in steps that "
        "adapt to the accuracy; or your own module:function.",
    ),
    CRITERION,
    click.option(
        "--compensate",
        type=click.Choice((AUTO, *METHODS)),
        default=Settings.compensate,
        show_default=True,
        help="How the layers after removed filters are corrected, once that helps; auto is "
        "least-squares with samples, else none.",
    ),
    UNLABELLED,
    METRIC,
    TUNE,
)

TARGET = together(
    click.option(
        "--rate",
        type=Share(0, 1, min_open=True),
        metavar="SHARE",
        help="Stop when this share of the removable filters is gone, such as 0.5 or 50%.",
    ),
    click.option(
        "--params",
        type=SHARE_OR_COUNT,
        metavar="SHARE|COUNT",
        help="Stop at this share of the parameters (up to 1), or at this many (above 1).",
    ),
    click.option(
        "--macs",
        type=SHARE_OR_COUNT,
        metavar="SHARE|COUNT",
        help="Stop at this share of the multiply-adds (up to 1), or at this many (above 1).",
    ),
    click.option(
        "--size",
        type=SHARE_OR_COUNT,
        metavar="SHARE|COUNT",
        help="Stop at this share of the file's bytes (up to 1), or at this many (above 1).",
    ),
    click.option(
        "--latency-ms",
        type=Number(0, min_open=True),
        metavar="MS",
        help="Stop at this latency on onnxruntime, measured with --threads and --latency-batch.",
    ),
    LATENCY_BATCH,
)

FLOOR = together(
    click.option(
        "--min-accuracy",
        type=SHARE,
        metavar="SHARE",
        help="Keep the harmonic mean of the class accuracies above this.",
    ),
    click.option(
        "--max-drop",
        type=SHARE,
        metavar="SHARE",
        help="Lose at most this much of the harmonic mean; 0.01 if neither target nor floor is "
        "given.",
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
    help="Prune through these operators although they mix channels, such as layernorm,groupnorm; "
    "the report names each node.",
)

LIMITS = together(
    click.option(
        "--min-channels",
        type=click.IntRange(1),
        default=Limits.min_channels,
        show_default=True,
        metavar="N",
        help="Leave at least this many channels in every layer.",
    ),
    click.option(
        "--max-layer-rate",
        type=SHARE,
        default=Limits.max_layer_rate,
        show_default=True,
        metavar="SHARE",
        help="Remove at most this share of any layer.",
    ),
    click.option(
        "--include",
        type=Convolution(),
        multiple=True,
        metavar="PATTERN",
        help="Prune only convolutions whose name matches, such as 'layer3.*'; repeatable.",
    ),
    click.option(
        "--exclude",
        type=Convolution(),
        multiple=True,
        metavar="PATTERN",
        help="Spare convolutions whose name matches; repeatable.",
    ),
    click.option(
        "--round-to",
        type=click.IntRange(1),
        default=Limits.round_to,
        show_default=True,
        metavar="N",
        help="Leave widths at multiples of N, such as 8, which runtimes compute faster.",
    ),
    ALLOW_INEXACT,
)

SAMPLES = "a folder, .npz or module:function"


def samples(name: str, metavar: str, help: str, *, required: bool = True) -> Decorator[Any]:
    """Return an option that takes samples."""
    return click.option(
        name, type=FILE, required=required, metavar=metavar, help=f"{help}: {SAMPLES}."
    )


DATA = samples("--data", "REF", "Reference samples", required=False)

METHODS_DRAWN = click.option(
    "--method",
    "methods",
    type=Method(tuple(CONTROLLERS), CRITERION_NAMES, tuple(METHODS)),
    multiple=True,
    default=("accuracy-aware/lrp", "one-shot/lrp"),
    show_default=True,
    metavar="CONTROL/CRITERION[/COMPENSATE]",
    help="What to draw; repeatable.",
)

CONVERSION = together(
    click.option(
        "--from",
        "framework",
        type=Name(CONVERTER_NAMES),
        required=True,
        metavar="NAME",
        help=f"The framework: {', '.join(CONVERTER_NAMES)}.",
    ),
    click.option(
        "--input-shape",
        callback=_sizes,
        metavar="C,H,W",
        help="Shape of one sample, without the batch axis.",
    ),
    click.option(
        "--weights",
        type=FILE,
        metavar="FILE|NAME",
        help="A file with a state dict, or a name that torchvision knows.",
    ),
    click.option(
        "--opset",
        type=click.IntRange(7),
        metavar="N",
        help="ONNX operator set; by default the exporter's own.",
    ),
    click.option("--fixed-batch", is_flag=True, help="Fix the batch size to 1."),
    click.option(
        "--exporter",
        type=click.Choice(["dynamo", "classic"]),
        default="dynamo",
        show_default=True,
        help="Exporter of torch.",
    ),
    click.option("--keep-batchnorm", is_flag=True, help="Do not fold batch normalisation."),
)
