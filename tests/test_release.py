"""What is published says the same everywhere, and the container gets all that is built from."""

import fnmatch
import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

import onnxprune

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CITATION: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_citation_is_of_this_version() -> None:
    """The keys that version 1.2.0 of the Citation File Format requires, and those we name twice."""
    assert {"authors", "cff-version", "message", "title"} <= CITATION.keys()
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["version"] == onnxprune.__version__
    project = PROJECT["project"]
    assert CITATION["title"] == project["name"]
    assert CITATION["license"] == project["license"]
    assert [one["name"] for one in CITATION["authors"]] == [
        one["name"] for one in project["authors"]
    ]
    assert CITATION["repository-code"] == project["urls"]["Source"]
    assert CITATION["url"] == project["urls"]["Documentation"]


def test_the_site_is_where_the_project_says() -> None:
    text = (ROOT / ".mkdocs.yml").read_text(encoding="utf-8")
    urls = PROJECT["project"]["urls"]
    assert f"site_url: {urls['Documentation']}\n" in text
    assert f"repo_url: {urls['Source']}\n" in text


def test_a_release_is_tried_with_the_pythons_that_are_promised() -> None:
    spec = importlib.util.spec_from_file_location("tasks", ROOT / "tasks.py")
    assert spec is not None
    assert spec.loader is not None
    tasks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tasks)
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    assert tuple(promised) == tasks.PYTHONS
    assert PROJECT["project"]["requires-python"] == f">={promised[0]}"


def test_the_container_gets_all_that_a_wheel_is_built_from() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert lines[0] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    needed = {path.split("/")[0] for path in PROJECT["tool"]["setuptools"]["package-dir"].values()}
    project = PROJECT["project"]
    needed |= {"pyproject.toml", "constraints.txt", project["readme"], *project["license-files"]}
    assert needed == let_in
    kept = [line for line in lines[1:] if not line.startswith("!")]
    assert not any(fnmatch.fnmatch(name, pattern) for name in needed for pattern in kept)


def test_the_container_has_a_target_for_each_machine() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    targets = dict(
        re.findall(r"^FROM base AS (\w+)\n(.*?)(?=^FROM|\Z)", text, re.MULTILINE | re.DOTALL)
    )
    assert targets.keys() == {"cpu", "cuda"}
    for extra, target in (("cpu", "cpu"), ("gpu", "cuda")):
        asked = re.search(r'"onnxprune\[([\w,]+)\]"', targets[target])
        assert asked is not None
        extras = set(asked[1].split(","))
        assert extra in extras
        assert extras <= PROJECT["project"]["optional-dependencies"].keys()
