"""Whatever is wrong with a value is one line that names it, from Python, JSON and the command line.

A table: every option of a run, with wrong values of every kind and right ones. An option without a
line in it is a red test.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import onnxprune
from onnxprune import Limits, Plan, Settings, Target
from onnxprune.checks import rules_of
from onnxprune.cli.commands import main
from onnxprune.errors import OnnxPruneError
from onnxprune.search import OPTIONS, PARTS, Control
from tests.support.runs import FREE
from tests.support.small_net import Small

NAN, INF = math.nan, math.inf


def measure(outputs: Any, targets: Any) -> Any:
    return [1.0, 1.0, 1.0]


def spread(weight: Any, rng: Any) -> Any:
    return weight.reshape(len(weight), -1).std(1)


@dataclass(frozen=True)
class Values:
    """Values of an option: right ones, and wrong ones that a text on the command line can say."""

    right: tuple[Any, ...]
    wrong: tuple[Any, ...]
    texts: tuple[str, ...]


STRANGE: tuple[Any, ...] = (object(), {}, {"a": 1}, print, b"1", 1j, Fraction(1, 2), ..., Small)
"""What no option takes."""

NUMBERS = (
    "",
    "1",
    "0.5",
    "50%",
    "auto",
    True,
    False,
    np.True_,
    NAN,
    INF,
    -INF,
    -1,
    -0.5,
    [1],
    (1,),
)
"""What no option takes that is a number above 0."""
ARRAYS = (np.ones(1), np.ones(3), torch.ones(1), 10**400, -(10**400), 2**70)

WORDS = ("", "luck", "LUCK ", "luck\n", 1, 0, 1.5, True, None, ["lrp"], ("a", "b"), np.float32(1))

SHARE = Values(
    (1, 1.0, 0.25, np.float32(0.5), np.float64(0.5), np.int64(1), None),
    (*NUMBERS, *ARRAYS, 5, 50, 1.0000001, np.float64(2), np.int8(-1)),
    ("50", "150%", "nan", "inf", "-1", "half", "", "1e400", "1,5"),
)
POSITIVE = Values(
    (1, 0.5, 1e6, 12345, np.float32(0.5), np.int32(7), None),
    (*NUMBERS, *ARRAYS, 0, 0.0, np.float64(-1)),
    ("0", "nan", "inf", "-1", "half", "", "150%"),
)
ONE_OR_MORE = Values(
    (1, 8, np.int64(3), np.uint8(3)),
    (*NUMBERS, *ARRAYS, 0, 8.5, 8.0, np.float64(8), np.int8(-3)),
    ("0", "-3", "8.5", "eight", "", "nan"),
)
ONE_OR_MORE_OR_NONE = Values((*ONE_OR_MORE.right, None), ONE_OR_MORE.wrong, ONE_OR_MORE.texts)
ZERO_OR_MORE = Values(
    (0, *ONE_OR_MORE.right), (*NUMBERS, *ARRAYS, 8.5, None), ONE_OR_MORE.texts[1:]
)
PATTERNS = Values(
    ((), [], ["one"], ("o*",), {"one"}, dict.fromkeys(["one"]).keys()),
    (
        *("one", "/stage1/*", b"one", 1, 1.5, True, None, [1], [None]),
        *([""], ["one", b"two"], {"one": 1}),
    ),
    (),
)

STEP = Values((0.05, 1, np.float32(0.5)), (*NUMBERS, 0, 2, None), ("0", "2", "half", "nan", ""))
FACTOR = Values((0, 0.9, 10, np.float64(2)), (*NUMBERS, None), ("-1", "half", "NaN", ""))
MULTIPLE = Values((4, 0.5), (*FACTOR.wrong, 0), (*FACTOR.texts, "0"))


def choice(*right: str) -> Values:
    return Values(right, WORDS, ("luck", ""))


TABLE: Mapping[str, Values] = {
    "control": choice("one-shot", "iterative", "accuracy-aware", "dpx"),
    "criterion": Values(
        ("lrp", "magnitude:l1", spread),
        (
            *WORDS,
            "lrp:luck",
            "lrp,luck",
            ":",
            "a:",
            ":a",
            "nowhere.py:f",
            "math:pi",
            len,
            lambda: 1,
        ),
        ("luck", "lrp:luck", "nowhere.py:f", "math:pi"),
    ),
    "compensate": choice("auto", "none", "bias", "least-squares"),
    "unlabelled": Values(
        (None, "images", Path("images")), ("", 1, 0.5, True, ["images"], b"images"), ()
    ),
    "metric": Values(
        ("top-1", "top-3", "mean-iou", "map", "map50", measure),
        (*WORDS, "top-0", "top-x", "top--1", "nowhere.py:f", "math:pi", lambda: 1),
        ("luck", "top-0", "nowhere.py:f"),
    ),
    "head": Values(("auto", "ssd", "math:sqrt"), (*WORDS, "math:pi"), ("luck", "nowhere.py:f")),
    "outputs": Values((["logits"], ["a", "b=vector"], ()), ("a", 1, [1], [""], b"a", None), ()),
    "rate": Values(SHARE.right, (*SHARE.wrong, 0, 0.0), (*SHARE.texts, "0")),
    "params": POSITIVE,
    "macs": POSITIVE,
    "size": POSITIVE,
    "latency_ms": POSITIVE,
    "aim": Values(
        (None, "estimated-latency", "latency", "macs", "params", "size", "rate"),
        (*(word for word in WORDS if word is not None), "latency_ms"),
        ("luck", "latency_ms", ""),
    ),
    "min_accuracy": Values((*SHARE.right, 0), SHARE.wrong, SHARE.texts),
    "max_drop": Values((*SHARE.right, 0), SHARE.wrong, SHARE.texts),
    "confidence": Values((0, 0.9, np.float32(0.5)), (*SHARE.wrong, 1, None), (*SHARE.texts, "1")),
    "min_channels": ONE_OR_MORE,
    "max_layer_rate": Values((*SHARE.right[:-1], 0), (*SHARE.wrong, None), SHARE.texts),
    "layer_rate": Values(
        ((), {}, {"x": 0.3}, {"x": 0, "y*": np.float32(1)}, (("x", 0.5), ("x.*", 1))),
        (
            *("x=0.3", b"x", 1, 0.5, True, None, [1], ["x"], [("x", "0.3")], {"x": [0.3]}),
            *({"x": 1.1}, {"x": -0.1}, {"x": None}, {"x": True}, {"": 0.3}, {"x": NAN}),
        ),
        ("x", "0.3", "x=", "x=half", "x=1.5", "x=-1", "=0.3", "x=150%", ""),
    ),
    **dict.fromkeys(("include", "exclude"), PATTERNS),
    "round_to": Values(
        (*ONE_OR_MORE.right, "auto"),
        (*(value for value in NUMBERS if value != "auto"), *ARRAYS, 0, 8.5, 8.0, None),
        ONE_OR_MORE.texts,
    ),
    "allow_inexact": Values(
        ((), ["reducemean"], ("LayerNorm", "softmax")),
        ("reducemean", "r", b"r", 1, True, None, [1], [""], ["luck"], ["reducemean", "luck"], {}),
        ("luck", "reducemean,luck", "reducemean luck"),
    ),
    "also": Values(
        ((), ["dense"], ("dense", "branches")),
        ("dense", b"dense", 1, True, None, [1], [""], ["Dense"]),
        ("luck", "dense,luck"),
    ),
    "input_shapes": Values(
        ((), {}, {"x": (1, 3, 8, 8)}, {"x": (np.int64(1),)}, (("x", (1, 3)), ("z", (2,)))),
        (
            *("x:1,3", b"x", 1, 0.5, True, None, [1], ["x"], [("x", "1,3")], {"x": 3}, {"x": ()}),
            *({"x": (1, 0)}, {"x": (1, 2.5)}, {"x": (1, None)}, {"": (1, 3)}),
        ),
        ("x", "1,3,8,8", "x:", "x:1,,3", "x:1,3,0", "x:1,-3", ":1,3", "x:1,3.5", ""),
    ),
    "preprocess": choice("auto", "unit", "caffe", "tf", "raw", "bgr", "mean=0.5,0.4,0.3:std=0.25"),
    "trust_baseline": Values((True, False, np.True_), ("yes", "", 0, 1, 0.5, None, [True]), ()),
    **dict.fromkeys(("batch_size", "latency_batch"), ONE_OR_MORE),
    **dict.fromkeys(("memory", "per_class"), ONE_OR_MORE_OR_NONE),
    "latency_on": choice("onnxruntime", "openvino"),
    "device": Values(("auto", "cpu", "cuda", "tensorrt"), (*WORDS, "gpu"), ("gpu", "cuda:0")),
    "threads": Values(ZERO_OR_MORE.right, (*ZERO_OR_MORE.wrong, -3, 10**6), ("-3", "1.5", "all")),
    **dict.fromkeys(("patience", "longest_rest", "seed"), ZERO_OR_MORE),
    **dict.fromkeys(("stride", "step", "smallest", "finest"), STEP),
    **dict.fromkeys(("harmless", "harmful", "lost", "own_squares", "fewer_squares"), FACTOR),
    "little": Values((0, 0.5, 1), (*FACTOR.wrong, 1.5), (*FACTOR.texts, "1.5")),
    **dict.fromkeys(("layer_share", "even_share"), MULTIPLE),
    "orders": choice("several", "one"),
    "ridge_share": FACTOR,
    "fit_rounds": ZERO_OR_MORE,
    "mirrored": choice("auto", "never"),
    "ridge": Values((*FACTOR.right, None), FACTOR.wrong[:-1], FACTOR.texts),
    "variance": Values((0, 0.5, 1), (*FACTOR.wrong, 1.5), (*FACTOR.texts, "1.5")),
    **dict.fromkeys(("evenly", "reranks"), choice("auto", "always", "never")),
    "correct": choice("unseen", "seen", "start"),
}


def each(which: str) -> pytest.MarkDecorator:
    pairs = [(name, value) for name, line in TABLE.items() for value in getattr(line, which)]
    return pytest.mark.parametrize(
        ("name", "value"),
        pairs,
        ids=[f"{n}-{type(v).__name__}-{k}" for k, (n, v) in enumerate(pairs)],
    )


def refused(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """Call what must be refused, and return its one line."""
    with pytest.raises(OnnxPruneError) as caught:
        call(*arguments, **options)
    line = str(caught.value)
    assert len(line.splitlines()) == 1, line
    assert len(line) < 700, line
    assert ";" in line or "expected" in line, line
    return line


def made_by(name: str) -> type[Any]:
    """The class that has an option of its own."""
    return next((kind for kind in PARTS.values() if name in rules_of(kind)), Settings)


# The table


def test_every_option_is_in_the_table() -> None:
    assert OPTIONS.keys() == TABLE.keys()


def test_every_option_has_its_help() -> None:
    for name, option in OPTIONS.items():
        assert option.metadata["rule"].help or name in rules_of(Control), name


@each("wrong")
def test_wrong_values_are_refused_in_python(name: str, value: Any) -> None:
    line = refused(Settings.of, **{name: value})
    assert line == refused(made_by(name), **{name: value})
    assert name in line or (name == "criterion" and "'luck'" in line) or str(value) in line


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("value", STRANGE, ids=lambda value: type(value).__name__)
def test_strange_values_are_refused_in_python(name: str, value: Any) -> None:
    if callable(value) and name in ("control", "criterion", "metric"):
        return
    if isinstance(value, dict) and (name == "layer_rate" or (not value and name == "input_shapes")):
        return
    assert refused(Settings.of, **{name: value}).startswith(name)


@each("right")
def test_right_values_are_taken(name: str, value: Any) -> None:
    settings = Settings.of(**{name: value})
    held = getattr(
        next((getattr(settings, p) for p, k in PARTS.items() if name in rules_of(k)), settings),
        name,
    )
    if isinstance(value, list | set) or hasattr(value, "mapping"):
        assert held == tuple(value)
    elif isinstance(value, dict):
        assert dict(held) == value
    elif not callable(value):
        assert held == (str(value) if isinstance(value, Path) else value)
    assert type(held) in (int, float, bool, str, tuple, type(None))
    assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


@each("wrong")
def test_wrong_values_are_refused_in_json(name: str, value: Any) -> None:
    try:
        read = json.loads(json.dumps(value))
    except TypeError:
        return
    if read == [] or (name in ("include", "exclude") and isinstance(value, tuple)):
        return
    part = next((p for p, kind in PARTS.items() if name in rules_of(kind)), None)
    content = {name: read} if part is None else {part: {name: read}}
    assert refused(Settings.from_json, content) == refused(Settings.of, **{name: read})


@each("texts")
def test_wrong_texts_are_refused_on_the_command_line(
    name: str, value: str, small: Small, tmp_path: Path
) -> None:
    option = {"aim": "--for"}.get(name, f"--{name.replace('_', '-').replace('shapes', 'shape')}")
    out = tmp_path / "out.onnx"
    asked = ["--set", f"{name}={value}"] if name in rules_of(Control) else [option, value]
    command = ["prune", str(small.path), "-o", str(out), "--data", str(small.data), *asked]
    result = CliRunner().invoke(main, command)
    assert result.exit_code in (1, 2)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "internal" not in line
    assert not out.exists()
    said = line.removeprefix("error: ").partition("; see onnxprune")[0]
    assert said.startswith((option, name, value.split(":")[0], "LRP rule 'luck'"))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("rate", 50, "rate 50: expected a number above 0, at most 1; for 50 %, give 0.5"),
        (
            "rate",
            "30%",
            "rate '30%': is a string; expected a number above 0, at most 1; for 30%, give 0.3",
        ),
        ("rate", -0.5, "rate -0.5: expected a number above 0, at most 1"),
        ("max_drop", 5, "max_drop 5: expected a number from 0 to 1; for 5 %, give 0.05"),
        ("threads", -3, "threads -3: expected a whole number from 0 to 1024"),
        ("round_to", 8.5, "round_to 8.5: is a float; expected a whole number, 1 or more, or auto"),
        ("seed", -1, "seed -1: expected a whole number, 0 or more"),
        ("batch_size", 0, "batch_size 0: expected a whole number, 1 or more"),
        ("device", "gpu", "device 'gpu': unknown; expected one of auto, cpu, cuda, tensorrt"),
        (
            "include",
            "/stage1/*",
            "include '/stage1/*': is a string; expected a list of patterns of names, as in "
            "['/stage1/*']",
        ),
        ("batch_size", np.ones(3), "batch_size: is an array; expected a whole number, 1 or more"),
        ("round_to", None, "round_to: is None; expected a whole number, 1 or more, or auto"),
    ],
)
def test_what_errors_say(name: str, value: Any, says: str) -> None:
    assert refused(Settings.of, **{name: value}) == says


def test_errors_are_those_of_python_too() -> None:
    for value, kind in ((50, ValueError), ("1", TypeError), (None, None)):
        if kind is None:
            assert Settings.of(rate=value).target.rate is None
            continue
        with pytest.raises(kind):
            Settings.of(rate=value)
    with pytest.raises(ValueError, match="device 'gpu': unknown"):
        Settings.of(device="gpu")
    with pytest.raises(TypeError, match="option 'nonsense': unknown"):
        Settings.of(nonsense=3)
    with pytest.raises(ValueError, match="filter"):
        Plan({"a": (-1,)})


# Options of a call


def test_options_are_merged_into_settings(small: Small) -> None:
    base = Settings.of(**FREE, rate=0.5, min_channels=2)
    result = onnxprune.prune(small.proto, settings=base, rate=0.2)
    assert 0.2 <= result.report["rate"] < 0.5
    merged = base.changed(rate=0.2, round_to=2)
    assert (merged.target.rate, merged.limits) == (0.2, Limits(min_channels=2, round_to=2))
    assert Settings.of(target=Target(macs=0.5), rate=0.2).target == Target(macs=0.5, rate=0.2)


@pytest.mark.parametrize("call", [onnxprune.prune, onnxprune.compare])
def test_unknown_options_are_refused_with_the_nearest(
    call: Callable[..., Any], small: Small
) -> None:
    models = (small.path,) if call is onnxprune.prune else (small.path, small.path)
    settings = Settings.of(rate=0.5)
    says = refused(call, *models, small.data, settings=settings, rate=0.4, max_dorp=0.1)
    assert says.startswith("option 'max_dorp': unknown; expected one of control")
    assert says.endswith("did you mean 'max_drop'?")
    for wrong in ({"rate": 0.5}, "one-shot", Target(rate=0.5), 3):
        assert refused(call, *models, small.data, settings=wrong).startswith("settings")


def test_an_unknown_name_in_json_is_refused() -> None:
    assert "option 'raet': unknown" in refused(Settings.from_json, {"target": {"raet": 0.5}})
    assert "option 'speed': unknown" in refused(Settings.from_json, {"speed": 3})
    for wrong in ([], "settings", None, {"target": 0.5}, {"limits": [1]}, {"floor": None}):
        refused(Settings.from_json, wrong)


# What a call leaves behind


def test_public_names_are_listed() -> None:
    assert set(onnxprune.__all__) <= set(dir(onnxprune))
