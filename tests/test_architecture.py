"""The house as docs/design.md draws it, held by reading the imports."""

import ast
import fnmatch
import importlib
import os
import re
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import onnxprune

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "samples" / "fashion_mnist" / "model.onnx"

ORDER = (
    ("errors",),
    ("labels", "label_maps", "node", "files", "wire", "own", "weights"),
    ("pattern", "letters", "boxes", "balance"),
    ("ops", "storage"),
    ("shapes", "subgraphs", "variation", "computed", "unshare"),
    ("graph",),
    ("sites", "constants", "runs"),
    ("propagate", "channels"),
    ("mirror", "fold"),
    ("zeros",),
    ("surgery", "rules", "routes", "relevance", "cost", "scores", "batches", "memory"),
    ("readers", "least_squares", "covariance"),
    ("directions", "damage"),
    ("measures", "criteria"),
    ("redundancy", "correction", "refit", "compensate"),
    ("plan", "rounding"),
    ("task", "reach"),
    ("search",),
    ("settings", "journal", "outcome", "run", "curve", "plots", "figures", "report", "tables"),
    ("layout", "skeleton", "drawing", "inspection"),
    ("__init__",),
    ("cli", "options", "program"),
    ("__main__",),
)
"""A module imports from its own row (never in a circle) and from the rows above it."""

ABOVE = {
    "settings",
    "journal",
    "outcome",
    "run",
    "curve",
    "inspection",
    "report",
    "__init__",
    "cli",
    "options",
}

LEAVES = {
    "evaluate": ABOVE,
    "metrics": ABOVE | {"evaluate", "figures", "plots"},
    "runtime": ABOVE | {"evaluate"},
    "data": ABOVE
    | {"batches", "criteria", "compensate", "correction", "covariance", "damage", "redundancy"},
    "images": ABOVE | {"data"},
}
"""They import no more than each other and `UNDER_LEAVES`, and are imported only from here: search
is given an evaluator and knows none."""

UNDER_LEAVES = ("errors", "files", "storage", "own", "label_maps")

ONLY_IN = {
    "torch": {
        *("ops", "mirror", "fold", "rules", "relevance", "batches", "memory", "criteria"),
        *(
            "measures",
            "compensate",
            "least_squares",
            "covariance",
            "correction",
            "damage",
            "directions",
            "refit",
        ),
    },
    "onnxruntime": {"runtime"},
    "click": {"cli", "options", "program"},
    "rich": {"program", "tables"},
}

TOP_LEVEL = {
    *("onnxprune", "converters", "tests", "samples", "docs"),
    *("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"),
    *("constraints.txt", "tasks.py"),
}

DISTRIBUTIONS = {"PIL": "pillow", "google": "onnx"}  # protobuf comes with onnx
MAX_LINES = 400


@dataclass(frozen=True)
class Import:
    """One imported module of one file; `unit` is the module or sub-package it stands in."""

    unit: str
    name: str
    line: int


def unit_of(module: str) -> str:
    """`onnxprune.ops.linear` is part of `ops`, the package itself is `__init__`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def at_runtime(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below, but not what only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield other
                yield from at_runtime(other)
            continue
        yield child
        yield from at_runtime(child)


def read_imports(sources: Mapping[str, str]) -> list[Import]:
    """The imports of files, given as path below the package -> text; absolute names."""
    known = {"onnxprune"} | {
        "onnxprune." + path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in sources
    }
    found = []
    for path, text in sources.items():
        parts = ["onnxprune", *path.removesuffix(".py").split("/")]
        unit = parts[1]
        for node in at_runtime(ast.parse(text)):
            if isinstance(node, ast.Import):
                found += [Import(unit, alias.name, node.lineno) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = ".".join(parts[: -node.level]) if node.level else ""
                module = ".".join(filter(None, (base, node.module)))
                for alias in node.names:
                    if alias.name == "__version__":
                        continue
                    name = f"{module}.{alias.name}"
                    found.append(Import(unit, name if name in known else module, node.lineno))
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                named = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
                found += [Import(unit, str(name), node.lineno) for name in named]
    return found


def order_violations(imports: list[Import]) -> list[str]:
    row = {unit: i for i, units in enumerate(ORDER) for unit in units}
    problems = []
    for item in imports:
        if item.name.split(".")[0] != "onnxprune" or unit_of(item.name) == item.unit:
            continue
        target, unit = unit_of(item.name), item.unit
        if target in ("converters", "samples"):
            allowed = unit == "cli"
        elif target in LEAVES:
            allowed = unit in LEAVES[target]
        elif unit in LEAVES:
            allowed = target in UNDER_LEAVES
        elif unit not in row or target not in row:
            problems.append(f"{unit}.py has no place in ORDER, or {target} has none")
            continue
        else:
            allowed = row[target] <= row[unit]
        if not allowed:
            problems.append(f"{unit}:{item.line} imports {item.name}")
    return problems


def confinement_violations(imports: list[Import]) -> list[str]:
    problems = []
    for item in imports:
        package = "torch" if item.name == "onnxprune.ops._torch" else item.name.split(".")[0]
        if item.unit not in ONLY_IN.get(package, {item.unit}):
            problems.append(f"{item.unit}:{item.line} imports {item.name}")
    return problems


def cycles(imports: list[Import]) -> set[str]:
    """The units that import themselves in a circle."""
    edges: dict[str, set[str]] = {}
    for item in imports:
        if item.name.split(".")[0] == "onnxprune" and unit_of(item.name) != item.unit:
            edges.setdefault(item.unit, set()).add(unit_of(item.name))
    while True:
        inner = {unit: targets & edges.keys() for unit, targets in edges.items()}
        kept = {unit: targets for unit, targets in inner.items() if targets}
        if kept == edges:
            return set(kept)
        edges = kept


def sources(folder: str = "onnxprune") -> dict[str, str]:
    """Path below the folder -> text."""
    top = ROOT / folder
    return {
        path.relative_to(top).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(top.rglob("*.py"))
    }


def test_imports_follow_the_order() -> None:
    assert order_violations(read_imports(sources())) == []


def test_nothing_imports_itself_in_a_circle() -> None:
    assert cycles(read_imports(sources())) == set()


def test_outside_packages_stay_in_their_modules() -> None:
    assert confinement_violations(read_imports(sources())) == []


def test_every_file_has_a_place_in_the_order() -> None:
    placed = {unit for units in ORDER for unit in units} | LEAVES.keys()
    assert {path.removesuffix(".py").split("/")[0] for path in sources()} - placed == set()


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["cpu"]]
    declared = {re.split(r"[^\w.-]", line)[0].lower() for line in lines}
    used = {item.name.split(".")[0] for item in read_imports(sources())}
    outside = used - set(sys.stdlib_module_names) - {"onnxprune"}
    assert {DISTRIBUTIONS.get(name, name).lower() for name in outside} - declared == set()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("labels.py", "from onnxprune.channels import find_groups"),
        ("ops/linear.py", "def f():\n    from onnxprune import surgery"),
        ("search.py", "import onnxprune.evaluate"),
        ("search.py", "from onnxprune.data import Data"),
        ("evaluate.py", "from .graph import Graph"),
        ("ops/linear.py", "from ..channels import find_groups"),
        ("plan.py", "from onnxprune import prune"),
        ("novel.py", "import onnxprune.errors"),
    ],
)
def test_the_order_can_be_broken(path: str, text: str) -> None:
    others = dict.fromkeys(("surgery.py", "channels.py", "graph.py", "evaluate.py"), "")
    assert order_violations(read_imports({**others, path: text})) != []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("search.py", "def f():\n    import torch.nn"),
        ("run.py", "from torch import nn"),
        ("run.py", 'importlib.import_module("torch.nn")'),
        ("plan.py", "from onnxprune.ops._torch import torch"),
        ("mirror.py", "import onnxruntime"),
        ("report.py", "import click"),
        ("search.py", "from rich.progress import track"),
    ],
)
def test_the_confinement_can_be_broken(path: str, text: str) -> None:
    assert confinement_violations(read_imports({"ops/_torch.py": "", path: text})) != []


def test_a_circle_is_found() -> None:
    texts = {"graph.py": "import onnxprune.labels", "labels.py": "import onnxprune.graph"}
    assert cycles(read_imports(texts)) == {"graph", "labels"}


def test_imports_for_annotations_are_free() -> None:
    text = "if TYPE_CHECKING:\n    import torch\n    from onnxprune.cli import main\n"
    assert read_imports({"plan.py": text}) == []


def test_converters_import_of_the_core_only_errors() -> None:
    for path in sorted((ROOT / "converters").glob("*.py")):
        for node in at_runtime(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            core = [name for name in names if name.split(".")[0] == "onnxprune"]
            assert core in ([], ["onnxprune.errors"]), f"{path.name}:{node.lineno}"


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": ""},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LIGHT = ("onnxprune", *(f"onnxprune.{m}" for m in "graph channels surgery plan cost".split()))
LOADED = "import sys; print('loaded:', *sorted({'torch', 'onnxruntime'} & set(sys.modules)))"


@pytest.mark.parametrize("module", LIGHT)
def test_importing_loads_no_torch(module: str) -> None:
    assert run_python(f"import {module}\n{LOADED}") == "loaded:\n"


def test_listing_converters_loads_no_framework() -> None:
    code = f"import onnxprune.converters as c; assert c.frameworks()\n{LOADED}"
    assert run_python(code) == "loaded:\n"


def test_a_loaded_torch_is_seen() -> None:
    assert run_python(f"import torch\n{LOADED}") == "loaded: torch\n"


CLI = f"""
import sys
from onnxprune.cli import main
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
    assert printed.endswith("loaded:\n")
    assert again.read_bytes() == (tmp_path / "pruned.onnx").read_bytes()


def test_public_names_are_sorted_complete_and_importable() -> None:
    names = onnxprune.__all__
    assert list(names) == sorted(set(names))
    for name in names:
        assert getattr(onnxprune, name) is not None
    public = {
        name
        for name, value in vars(onnxprune).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public <= set(names)
    assert {"Graph", "OnnxPruneError", "apply", "find_groups", "prune"} <= set(names)


def test_every_error_is_a_public_one_of_ours() -> None:
    errors = importlib.import_module("onnxprune.errors")
    for name, value in vars(errors).items():
        if isinstance(value, type):
            assert issubclass(value, errors.OnnxPruneError), name
            assert re.search(rf"\b{name}\b", errors.__doc__ or ""), f"{name} is not in the tree"


def test_top_level_holds_nothing_else() -> None:
    ignored = [
        line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    ]
    found = {
        path.name
        for path in ROOT.iterdir()
        if not path.name.startswith(".")
        and not any(fnmatch.fnmatch(path.name, pattern) for pattern in ignored)
    }
    assert found - TOP_LEVEL == set()


@pytest.mark.parametrize(
    "path", [f"{folder}/{name}" for folder in ("onnxprune", "tests") for name in sources(folder)]
)
def test_files_stay_short(path: str) -> None:
    lines = (ROOT / path).read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_LINES, f"{path} has {lines} lines: split it"
