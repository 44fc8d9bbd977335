"""The options that several commands share; types, help and defaults are those of `Settings`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from typing import Any, TypeVar

import click

from onnxprune.checks import Names, Pairs, Rule, Text
from onnxprune.cli.logs import FLAG
from onnxprune.cli.program import Screen
from onnxprune.cli.types import Convolution, Given, Method, Name, Shape
from onnxprune.compensate import METHODS
from onnxprune.converters import CONVERTER_NAMES, Options
from onnxprune.deploy import Request
from onnxprune.engine import ENGINES, PROCESS, use_engine
from onnxprune.errors import OnnxPruneError
from onnxprune.exact import SHARE
from onnxprune.gate import Condition
from onnxprune.records import parse_json
from onnxprune.relevance import CRITERION_NAMES
from onnxprune.search import CONTROLLERS, OPTIONS, OVER, Control

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Function], Function]


FILE = click.Path()


def together(*options: Decorator[Any]) -> Decorator[Any]:
    """Return one decorator for several options."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def option(
    name: str, known: Mapping[str, Field[Any]] = OPTIONS, *, flag: str = ""
) -> Decorator[Any]:
    """Return the option of a field: of `Settings` and its parts, or of others that are `known`.

    Its flag is the field's name, unless another one is given.
    """
    found = known[name]
    rule: Rule = found.metadata["rule"]
    pairs = isinstance(rule, Pairs)
    several = pairs or (isinstance(rule, Names) and not rule.commas)
    return click.option(
        flag or f"--{name.replace('_', '-')}",
        name,
        type=_type(rule),
        default=found.default,
        show_default=found.default not in (None, ()),
        multiple=several,
        callback=_joined if pairs else None,
        metavar=rule.metavar,
        help=rule.help,
    )


def _joined(ctx: click.Context, param: click.Parameter, value: tuple[Any, ...]) -> Any:
    return tuple(pair for pairs in value for pair in pairs)


def _type(rule: Rule) -> Any:
    if isinstance(rule, Names) and not rule.commas:
        return Convolution()
    if isinstance(rule, Text):
        return FILE if rule.path else Name(rule.known)
    return Given(rule)


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
    click.option(
        FLAG,
        is_flag=True,
        expose_value=False,
        help="Write JSON to stderr: a line for each message, phase and step.",
    ),
)

TRUST_BASELINE = click.option(
    "--trust-baseline", is_flag=True, help=OPTIONS["trust_baseline"].metadata["rule"].help
)

JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON in place of tables, even with --quiet."
)

SCREEN = "-"

MARKDOWN = click.option(
    "--markdown",
    type=FILE,
    is_flag=False,
    flag_value=SCREEN,
    metavar="[FILE]",
    help="Write the tables in Markdown, for a pull request; without FILE, print them instead.",
)


PAGE = click.option(
    "--page",
    type=FILE,
    metavar="FILE",
    help="Write a page: the verdict, figures, classes and the samples whose answer changed.",
)


def _condition(ctx: click.Context, param: click.Parameter, value: str | None) -> Condition | None:
    try:
        return None if value is None else Condition(value)
    except OnnxPruneError as error:
        raise click.BadParameter(str(error), ctx, param) from error


FAIL_IF = click.option(
    "--fail-if",
    callback=_condition,
    metavar="CONDITION",
    help="End in exit code 1 if this holds, as in 'harmonic_drop > 0.01 or latency_ratio > 1'.",
)

EXACT = together(
    click.option(
        "--exact",
        is_flag=True,
        help="Say only whether the outputs are equal, else end in exit code 1; needs no --data.",
    ),
    click.option(
        "--plan",
        type=FILE,
        metavar="FILE",
        help="With --exact: MODEL as this plan masks it.",
    ),
    click.option(
        "--tolerance",
        type=Given(SHARE),
        default=None,
        metavar=SHARE.metavar,
        help=f"With --exact: {SHARE.help[0].lower()}{SHARE.help[1:-1]} (0.0001).",
    ),
)
TIMING = together(*map(option, ("latency_batch", "latency_on")))
DEVICE = option("device")
SEED = option("seed")
INPUT_SHAPES = option("input_shapes", flag="--input-shape")
RUNNING = together(
    INPUT_SHAPES,
    DEVICE,
    SEED,
    *map(option, ("threads", "batch_size", "preprocess", "per_class")),
    VOLUME,
)
WORK = together(RUNNING, option("memory"))


def _on_engine(command: Function) -> Any:
    """Run a command on the engine that its options name."""

    @functools.wraps(command)
    def run(*given: Any, engine: str, ray_address: str | None, workers: int, **asked: Any) -> Any:
        if engine == PROCESS and (ray_address or workers):
            raise click.UsageError("--ray-address and --workers: add --engine ray")
        if engine != PROCESS:
            asked["threads"] = asked["threads"] or 1
        with use_engine(
            engine,
            address=ray_address,
            workers=workers,
            threads=asked["threads"],
            device=asked["device"],
        ):
            return command(*given, **asked)

    return run


ENGINE = together(
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default=PROCESS,
        show_default=True,
        help="Where sums over samples are taken: in this process, or on workers of ray. The "
        "result is the same; --threads are those of a worker, by default 1.",
    ),
    click.option(
        "--ray-address",
        metavar="ADDRESS",
        help="The ray cluster; without it one is started on this machine.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Workers of ray; by default as many as there is room for.",
    ),
    _on_engine,
)
CRITERION = option("criterion")
METRIC = together(*map(option, ("metric", "head", "outputs")))
COMPARED = together(METRIC, TIMING, RUNNING)
UNLABELLED = option("unlabelled")


def _set(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> None:
    """Add NAME=VALUE to the other options; a value is JSON, or text as it is."""
    for text in value:
        name, _, given = text.partition("=")
        if name not in TUNING:
            raise click.BadParameter(f"{name!r}: expected one of {', '.join(TUNING)}", ctx, param)
        try:
            ctx.params[name] = parse_json(given)
        except ValueError:
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

METHOD = together(option("control"), CRITERION, option("compensate"), UNLABELLED, METRIC, TUNE)
TARGET = together(
    *map(option, ("rate", "params", "macs", "size", "latency_ms")),
    option("aim", flag="--for"),
    TIMING,
)
CONFIDENCE = option("confidence")
FLOOR = together(*map(option, ("min_accuracy", "max_drop")))
ALLOW_INEXACT = option("allow_inexact")
ALSO = option("also")
LIMITS = together(
    *map(option, ("min_channels", "max_layer_rate", "layer_rate", "include", "exclude")),
    option("round_to"),
    ALLOW_INEXACT,
    ALSO,
)

SAMPLES = "a folder, .npz, data.yaml, COCO json or module:function; labels are optional"


def samples(name: str, metavar: str, help: str, *, required: bool = True) -> Decorator[Any]:
    """Return an option that takes samples."""
    return click.option(
        name, type=FILE, required=required, metavar=metavar, help=f"{help}: {SAMPLES}."
    )


DATA = samples(
    "--data",
    "REF",
    "Reference samples (generated[:N] makes N from what the model stores)",
    required=False,
)

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

DRAWN_OVER = click.option(
    "--over",
    type=click.Choice(OVER),
    default="rate",
    show_default=True,
    help="What the methods bring down, and the curve is drawn over.",
)

DEPLOYING = {one.name: one for one in fields(Request)}
DEPLOYMENT = together(*(option(name, DEPLOYING) for name in DEPLOYING))

TRUST_HELP = "Load files that run code when they are loaded: pickles, Lambda layers of Keras."
TRUST = click.option("--trust", is_flag=True, help=TRUST_HELP)

CONVERTING = {one.name: one for one in fields(Options)}

SHAPES = ("input_shape", "input_shapes")
"""Of the only input, and of several by name."""


def _one_or_named(ctx: click.Context, param: click.Parameter, value: tuple[Any, ...]) -> Any:
    """Part what is one shape without a name from pairs of names and shapes."""
    named = tuple(one for one in value if isinstance(one[0], tuple))
    if len(named) < len(value) > 1:
        raise click.UsageError(
            "--input-shape: of several inputs each shape has a name, such as x:1,3,224,224", ctx
        )
    if named:
        return {"input_shapes": tuple(pair for pairs in named for pair in pairs)}
    return {"input_shape": value[0]} if value else {}


CONVERSION = together(
    click.option(
        "--from",
        "framework",
        type=Name(CONVERTER_NAMES),
        metavar="NAME",
        help=f"The framework, unless SOURCE tells: {', '.join(CONVERTER_NAMES)}.",
    ),
    click.option(
        "--input-shape",
        "shapes",
        type=Shape(*(CONVERTING[name].metadata["rule"] for name in SHAPES)),
        callback=_one_or_named,
        multiple=True,
        metavar="C,H,W",
        help="Shape of one sample, without the batch axis. NAME:1,C,H,W, repeatable, is that of "
        "one of several inputs.",
    ),
    *(option(name, CONVERTING) for name in ("weights", "opset")),
    click.option("--fixed-batch", is_flag=True, help="Fix the batch size to 1."),
    option("exporter", CONVERTING),
    click.option("--keep-batchnorm", is_flag=True, help="Do not fold batch normalisation."),
    TRUST,
)
