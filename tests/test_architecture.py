"""The house as docs/design.md draws it, held by reading the imports."""

import ast
import fnmatch
import itertools
import re
import sys
import tomllib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import onnxprune

ROOT = Path(__file__).resolve().parent.parent

ROOMS = {
    "errors": 1,
    "arrays": 1,
    "checks": 1,
    "engine": 1,
    "files": 1,
    "locks": 1,
    "memory": 1,
    "plugins": 1,
    "progress": 1,
    "records": 1,
    "text": 1,
    "gate": 2,
    "data": 2,
    "ops": 2,
    "graph": 3,
    "channels": 4,
    "evaluation": 4,
    "detection": 5,
    "runtimes": 5,
    "surgery": 5,
    "relevance": 6,
    "report": 6,
    "compensate": 7,
    "search": 8,
    **dict.fromkeys(("comparison", "deploy", "exact", "modules", "proof"), 9),
    **dict.fromkeys(("reproduction", "run", "written"), 9),
    **dict.fromkeys(("__init__", "__main__", "cli", "integrations", "retraining"), 10),
}
"""The rooms of docs/design.md and the level of each: imports point down, or aside (never in a
circle)."""

LEVELS = 10

ONLY_IN = {
    "torch": {"ops", "relevance", "compensate", "modules", "retraining"},
    "onnxruntime": {"deploy", "evaluation", "runtimes"},
    "nncf": {"deploy"},
    "onnx_graphsurgeon": {"graph"},
    "onnx_ir": {"graph"},
    "jinja2": {"report"},
    "msgspec": {"records"},
    "matplotlib": {"report"},
    **{package: {"data"} for package in ("PIL", "pyarrow")},
    "faster_coco_eval": {"detection"},
    "yaml": {"detection"},
    "ray": {"engine"},
    "psutil": {"memory"},
    "click": {"cli"},
    "rich": {"cli"},
}
"""Packages from outside, and the rooms that may import them."""

GIVEN = ("controllers", "nets", "task", "protocols", "picker", "rounding", "target", "reach")
UNSEEN = {file: {"evaluation", "relevance", "compensate"} for file in GIVEN}
"""Files of `search` that are given what these rooms make, and know none of them."""

TOP_LEVEL = {
    *("onnxprune", "converters", "tests", "samples", "docs"),
    *("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"),
    *("constraints.txt", "tasks.py", "Dockerfile", "CITATION.cff"),
}

DISTRIBUTIONS = {
    **{"ai_edge_litert": "ai-edge-litert", "cuda": "cuda-python"},
    "PIL": "pillow",
    "faster_coco_eval": "faster-coco-eval",
    "olive": "olive-ai",
    "google": "onnx",  # protobuf comes with onnx
    "onnx_graphsurgeon": "onnx-graphsurgeon",
    "onnx_ir": "onnx-ir",
    "yaml": "pyyaml",
}
DEVELOPED = ("test", "compare")  # what no user installs
MAX_LINES = 400


@dataclass(frozen=True)
class Import:
    """One imported module of one file; `unit` is the room or module that `file` stands in."""

    unit: str
    file: str
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
        unit, file = parts[1], parts[-1]
        for node in at_runtime(ast.parse(text)):
            if isinstance(node, ast.Import):
                found += [Import(unit, file, alias.name, node.lineno) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = ".".join(parts[: -node.level]) if node.level else ""
                module = ".".join(filter(None, (base, node.module)))
                for alias in node.names:
                    name = f"{module}.{alias.name}"
                    found.append(Import(unit, file, name if name in known else module, node.lineno))
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                named = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
                found += [Import(unit, file, str(name), node.lineno) for name in named]
    return found


def order_violations(imports: list[Import]) -> list[str]:
    problems = []
    for item in imports:
        if item.name.split(".")[0] != "onnxprune" or unit_of(item.name) == item.unit:
            continue
        target, unit = unit_of(item.name), item.unit
        if target in ("converters", "samples"):
            if unit != "cli":
                problems.append(f"{unit}:{item.line} imports {item.name}")
        elif unit not in ROOMS or target not in ROOMS:
            problems.append(f"{unit} has no place in ROOMS, or {target} has none")
        elif ROOMS[target] > ROOMS[unit] or (ROOMS[target] == ROOMS[unit] and inside(unit, target)):
            problems.append(f"{unit}:{item.line} imports {item.name}")
        elif target in UNSEEN.get(item.file, ()):
            problems.append(f"{unit}/{item.file}:{item.line} imports {item.name}")
        elif len(item.name.split(".")) > 2 and not item.name.endswith("._torch"):
            problems.append(f"{unit}:{item.line} imports {item.name}: import it from the room")
    return problems


def inside(unit: str, target: str) -> bool:
    """Say whether both are rooms, which may not import another of their level."""
    return all((ROOT / "onnxprune" / one / "__init__.py").exists() for one in (unit, target))


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


def height(imports: list[Import], unit: str) -> int:
    """How many levels stand on each other from the ground up to a room, its own included."""
    below = {
        unit_of(item.name)
        for item in imports
        if item.unit == unit and item.name.split(".")[0] == "onnxprune"
    }
    rooms = below & ROOMS.keys() - {unit}
    aside = {one: ROOMS[one] == ROOMS[unit] for one in rooms}  # on the same level
    return max((height(imports, one) + (not aside[one]) for one in rooms), default=1)


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


def test_the_house_has_ten_levels_at_most() -> None:
    imports = read_imports(sources())
    assert max(height(imports, unit) for unit in ROOMS) <= LEVELS


def test_outside_packages_stay_in_their_modules() -> None:
    assert confinement_violations(read_imports(sources())) == []


def test_the_design_draws_the_rooms() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    drawn = {
        name: int(level)
        for level, rest in re.findall(r"^ {4,}(\d+) {3}(.*)$", text, re.MULTILINE)
        for name in itertools.takewhile(ROOMS.__contains__, rest.split())
    }
    assert drawn == ROOMS


def test_every_room_has_its_level() -> None:
    assert {path.removesuffix(".py").split("/")[0] for path in sources()} == ROOMS.keys()
    assert sorted(set(ROOMS.values())) == list(range(1, LEVELS + 1))


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    installed = (extras[name] for name in extras if name not in DEVELOPED)
    lines = itertools.chain(project["dependencies"], *installed)
    declared = {re.split(r"[^\w.-]", line)[0].lower() for line in lines}
    used = {item.name.split(".")[0] for item in read_imports(sources())}
    outside = used - set(sys.stdlib_module_names) - {"onnxprune"}
    assert {DISTRIBUTIONS.get(name, name).lower() for name in outside} - declared == set()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("ops/array.py", "from onnxprune.channels import find_groups"),
        ("ops/linear.py", "def f():\n    from onnxprune import surgery"),
        ("search/controllers.py", "import onnxprune.evaluation"),
        ("search/controllers.py", "from onnxprune.relevance import Meter"),
        ("search/nets.py", "from onnxprune.compensate import compensator"),
        ("data/images.py", "from ..graph import Graph"),
        ("report/page.py", "from onnxprune.relevance import score"),
        ("search/plan.py", "from onnxprune import prune"),
        ("search/task.py", "from onnxprune.graph.graph import Graph"),
        ("novel.py", "import onnxprune.errors"),
    ],
)
def test_the_order_can_be_broken(path: str, text: str) -> None:
    others = {path: "" for path in sources() if path.endswith("__init__.py")}
    assert order_violations(read_imports({**others, path: text})) != []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("search/task.py", "def f():\n    import torch.nn"),
        ("run.py", "from torch import nn"),
        ("run.py", 'importlib.import_module("torch.nn")'),
        ("search/plan.py", "from onnxprune.ops._torch import torch"),
        ("relevance/mirror.py", "import onnxruntime"),
        ("report/page.py", "import click"),
        ("search/task.py", "from rich.progress import track"),
    ],
)
def test_the_confinement_can_be_broken(path: str, text: str) -> None:
    assert confinement_violations(read_imports({"ops/_torch.py": "", path: text})) != []


def test_a_circle_is_found() -> None:
    texts = {"files.py": "import onnxprune.errors", "errors.py": "import onnxprune.files"}
    assert cycles(read_imports(texts)) == {"files", "errors"}


def test_imports_for_annotations_are_free() -> None:
    text = "if TYPE_CHECKING:\n    import torch\n    from onnxprune.cli.commands import main\n"
    assert read_imports({"search/plan.py": text}) == []


USED = ("checks", "data", "errors", "files", "graph", "plugins", "evaluation")
CONVERTERS_IMPORT = {f"onnxprune.{room}" for room in USED}


def test_converters_import_few_rooms() -> None:
    for path in sorted((ROOT / "converters").glob("*.py")):
        for node in at_runtime(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = {node.module or ""}
            elif isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            else:
                continue
            core = {name for name in names if name.split(".")[0] == "onnxprune"}
            assert core <= CONVERTERS_IMPORT, f"{path.name}:{node.lineno}"


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


def test_the_wheel_holds_every_package() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    places = {"onnxprune": "", "samples": "onnxprune.", "converters": "onnxprune."}
    packages = {
        prefix + path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for folder, prefix in places.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert set(tool["setuptools"]["packages"]) == packages


def test_the_wheel_holds_every_data_file() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    held = {
        path
        for package, patterns in tool["setuptools"]["package-data"].items()
        for pattern in patterns
        for path in (ROOT / place_of(package)).glob(pattern)
    }
    kinds = {".html", ".typed", ".onnx", ".png", ".txt", ".json", ".npz", ".svg", ".css"}
    data = {
        path
        for folder in ("onnxprune", "samples", "converters")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in kinds
    }
    assert data - held == set()
    assert {"page.html", "py.typed", "classes.txt", "model.onnx"} <= {path.name for path in held}


def place_of(package: str) -> str:
    """The folder of a package: converters and samples lie at the top."""
    inner = package.removeprefix("onnxprune.")
    top = inner if inner.split(".")[0] in ("samples", "converters") else package
    return top.replace(".", "/")


def test_tests_mirror_the_rooms() -> None:
    rooms = {path.parent.name for path in (ROOT / "onnxprune").glob("*/__init__.py")}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    also = "benchmarks converters exporters fuzz gpu reliability samples support __pycache__"
    assert folders - set(also.split()) == rooms


def test_top_level_holds_nothing_else() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").replace("/\n", "\n").split()
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
