"""What needs no torch loads none, and works where none is installed; the program starts quickly."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx.parser
import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "onnxprune"
MODEL = ROOT / "samples" / "fashion_mnist" / "model.onnx"
REFERENCE = MODEL.parent / "reference"


def start_python(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "", "PYTHONDONTWRITEBYTECODE": ""},
    )


def run_python(code: str, *arguments: str) -> str:
    done = start_python(code, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_computes_tells_nobody(tmp_path: Path) -> None:
    """onnxruntime from 1.32 on writes into HOME what it is going to send."""
    code = """
import sys
from onnxprune.evaluation import session
session(sys.argv[1], device="cpu")
"""
    left = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "CI")}
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = [sys.executable, "-c", code, str(MODEL)]
    subprocess.run(done, check=True, cwd=ROOT, env={**left, **home})
    assert not list(tmp_path.iterdir())


LIGHT = (
    "onnxprune",
    *sorted(f"onnxprune.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py")),
)
LOADED = "import sys; print('loaded:', *sorted({'torch', 'onnxruntime'} & set(sys.modules)))"

HEAVY = LOADED.replace("'torch'", "'torch', 'scipy', 'matplotlib', 'psutil', 'onnx.reference'")


@pytest.mark.parametrize("module", LIGHT)
def test_importing_loads_nothing_heavy(module: str) -> None:
    assert run_python(f"import {module}\n{HEAVY}") == "loaded:\n"


def test_listing_converters_loads_no_framework() -> None:
    code = f"import onnxprune.converters as c; assert c.CONVERTERS\n{LOADED}"
    assert run_python(code) == "loaded:\n"


def test_a_loaded_torch_is_seen() -> None:
    assert run_python(f"import torch\n{LOADED}") == "loaded: torch\n"


CLI = f"""
import sys
from onnxprune.cli.commands import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    assert not stop.code, stop.code
{LOADED}
"""


def test_inspect_loads_no_torch() -> None:
    assert run_python(CLI, "inspect", str(MODEL)).endswith("loaded:\n")


def test_apply_loads_no_torch(tmp_path: Path) -> None:
    prune = ("prune", str(MODEL), "--control", "one-shot", "--criterion", "magnitude")
    run_python(
        CLI,
        *(*prune, "--rate", "0.3", "--compensate", "none"),
        *("-o", str(tmp_path / "pruned.onnx"), "--run-dir", str(tmp_path / "run")),
    )
    again = tmp_path / "again.onnx"
    plan = tmp_path / "run" / "plan.json"
    printed = run_python(CLI, "apply", str(MODEL), str(plan), "-o", str(again))
    assert printed.endswith("loaded: onnxruntime\n")  # which runs what was written
    assert again.read_bytes() == (tmp_path / "pruned.onnx").read_bytes()


BASE = "sys.modules['torch'] = sys.modules['matplotlib'] = None"
WITHOUT_TORCH = f"import sys; {BASE}\n{CLI.replace(LOADED, '')}"
"""The command line as the base installation has it, which brings no torch."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on the sample, where there was a torch."""
    folder = tmp_path_factory.mktemp("recorded")
    done = start_python(
        CLI,
        *("prune", str(MODEL), "--data", str(REFERENCE), "--per-class", "3", "--threads", "1"),
        *("--control", "one-shot", "--criterion", "magnitude", "--rate", "0.3"),
        *("--compensate", "none"),
        *("-o", str(folder / "small.onnx"), "--run-dir", str(folder / "run")),
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "prune --help",
        "inspect {model}",
        "apply {model} {run}/plan.json -o {here}/again.onnx",
        "compare {model} {folder}/small.onnx --data {data} --per-class 2 --threads 1 --json",
        "report {run}",
    ],
)
def test_the_base_installation_serves(command: str, recorded: Path, tmp_path: Path) -> None:
    places = {"model": MODEL, "folder": recorded, "run": recorded / "run", "data": REFERENCE}
    arguments = command.format(**places, here=tmp_path).split()
    run_python(WITHOUT_TORCH, *arguments)
    if arguments[0] == "apply":
        again = (tmp_path / "again.onnx").read_bytes()
        assert again == (recorded / "small.onnx").read_bytes()


@pytest.mark.parametrize(
    "command",
    [
        "prune {model} --data {data} -o {here}/small.onnx",
        "prune {model} --rate 0.1 -o {here}/small.onnx",
        "score {model} --data {data} -o {here}/scores.npz",
        "curve {model} --data {data} --test {data} -o {here}/curves",
        "demo -o {here}/demo",
    ],
)
def test_what_needs_torch_says_in_one_line_how_to_get_it(command: str, tmp_path: Path) -> None:
    places = {"model": MODEL, "data": REFERENCE, "here": tmp_path}
    done = start_python(WITHOUT_TORCH, *command.format(**places).split())
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert 'torch, which is not installed: pip install "onnxprune[cpu]"' in line


def test_the_shape_that_torch_alone_can_tell_is_asked_for_in_one_line(tmp_path: Path) -> None:
    net = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        net (float[N, 3, 8, 8] x) => (float[N, 4, M, M] y) <float[4, 3, 3, 3] w = {WEIGHT}>
        { y = com.microsoft.FusedConv<activation = "Relu">(x, w) }""".replace(
            "WEIGHT", ", ".join(["0.1"] * 108)
        )
    )
    onnx.save(net, tmp_path / "fused.onnx")
    with_torch = start_python(CLI, "inspect", str(tmp_path / "fused.onnx"))
    assert with_torch.returncode == 0, with_torch.stderr
    without = start_python(WITHOUT_TORCH, "inspect", str(tmp_path / "fused.onnx"))
    assert without.stderr.startswith("error: this needs torch")


PROGRAM = CLI.replace("onnxprune.cli.commands", "onnxprune.cli").replace(LOADED, "")
"""The command line as the installed program starts it."""


def cpu_seconds(program: tuple[str, ...]) -> float:
    """The CPU time of one run of Python."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run_python(*program)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def least_of(holds: Callable[[float, float], bool], *programs: tuple[str, ...]) -> list[float]:
    """The least CPU time of each of two programs, run in turn until a claim about them holds.

    A processor that is shared takes longer for the same work, so one run can only be too slow.
    """
    least = [float("inf")] * len(programs)
    for _ in range(15):
        least = [min(spent, cpu_seconds(one)) for spent, one in zip(least, programs, strict=True)]
        if holds(*least):
            break
    return least


@pytest.mark.parametrize("command", ["--help", "prune --help"])
def test_the_program_starts_within_half_a_second(command: str) -> None:
    # On a machine that is busy, or slow, what it builds on takes as much longer.
    def fast(builds_on: float, ours: float) -> bool:
        return ours < max(0.5, 2.2 * builds_on)

    spent = least_of(fast, ("import onnx, click, json",), (PROGRAM, *command.split()))
    assert fast(*spent), spent


def test_importing_takes_no_time() -> None:
    def light(nothing: float, ours: float) -> bool:
        return ours < nothing + 0.1

    spent = least_of(light, ("pass",), ("import onnxprune",))
    assert light(*spent), spent
