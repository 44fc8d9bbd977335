"""What the documents say can be followed: links lead somewhere, commands are accepted."""

import argparse
import doctest
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import readme

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

WIDE = {"CHANGELOG.md"}
"""A change is one line of CHANGELOG.md, so that branches merge."""

SESSIONS = [path for path in DOCUMENTS if "\n>>> " in path.read_text(encoding="utf-8")]

FENCE = re.compile(r"^ *(`{3,}|~{3,})([^\n]*)\n(.*?)^ *\1`* *$", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|\b(?:src|href)=\"([^\"]+)\"")
REFERENCE = re.compile(r"^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
SHELLS = {"sh", "bash", "shell", "console"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def links(text: str) -> list[str]:
    """The targets of links, outside of code, that are not on the network."""
    prose = INLINE_CODE.sub("", FENCE.sub("", text))
    found = [one or other for one, other in LINK.findall(prose)] + REFERENCE.findall(prose)
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def long_lines(text: str) -> list[str]:
    """Lines of more than 100 characters, but for tables, code, and words that cannot be broken."""
    prose = [line for line in FENCE.sub("", text).split("\n") if not line.startswith(("|", "    "))]
    breakable = [INLINE_CODE.sub(lambda code: "x" * len(code[0]), line) for line in prose]
    pairs = zip(prose, breakable, strict=True)
    return [line for line, words in pairs if len(line) > 100 and len(words.split()) > 1]


def anchors(text: str) -> set[str]:
    """The names that a document's headings have as link targets."""
    headings = re.findall(r"^#+\s+(.*?)\s*#*$", FENCE.sub("", text), re.MULTILINE)
    explicit = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    return explicit | {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def broken_links(path: Path, text: str) -> list[str]:
    broken = []
    for target in links(text):
        file, _, anchor = target.partition("#")
        place = (path.parent / file).resolve() if file else path
        if not place.exists() or not place.is_relative_to(ROOT):
            broken.append(target)
        elif anchor and place.suffix == ".md":
            other = text if place == path else place.read_text(encoding="utf-8")
            if anchor not in anchors(other):
                broken.append(target)
    return broken


def shell_lines(text: str) -> Iterator[str]:
    """The lines typed in the shell blocks, continuations joined; of a session, those after `$`."""
    for _, language, body in FENCE.findall(text):
        if language.strip().split(" ")[0] not in SHELLS:
            continue
        lines = re.sub(r"\\\n\s*", " ", body).splitlines()
        typed = [line.strip()[2:] for line in lines if line.strip().startswith("$ ")]
        yield from typed or (line.strip() for line in lines)


def commands(text: str, program: str) -> list[list[str]]:
    """The arguments of every call of `program` in the shell blocks."""
    found = []
    for line in shell_lines(text):
        line = re.sub(r"(?<=\s)2(?=>)", "", line)  # which stream is redirected
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();<>|&"):
                if words[: len(program.split())] == program.split():
                    found.append(words[len(program.split()) :])
                # What follows a redirection is a file, and ends the arguments we look at.
                words = [">"] if set(word) & set("<>") else []
            elif words or not re.fullmatch(r"\w+=\S*", word):
                words.append(word)
    return found


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch) -> "Refusal":
    return Refusal(monkeypatch)


class Refusal:
    """Says why the command line refuses arguments; nothing runs and no file needs to exist."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import click

        from onnxprune.cli.commands import main

        def accept(self: click.Path, value: object, param: object, ctx: object) -> object:
            return value

        monkeypatch.setattr(click.Path, "convert", accept)
        assert isinstance(main, click.Group)
        for command in (main, *main.commands.values()):
            monkeypatch.setattr(command, "callback", None)
        self.main = main

    def __call__(self, arguments: list[str]) -> str | None:
        from click.testing import CliRunner

        result = CliRunner().invoke(self.main, arguments)
        if result.exit_code == 0:
            return None
        return f"onnxprune {shlex.join(arguments)}: {result.output or result.exception}"


class Parsed(Exception):
    """Raised where a program would begin its work."""


def benchmark_refuses(module: str, arguments: list[str]) -> str | None:
    """Say why a program of tests/benchmarks/ refuses arguments; nothing runs."""
    import click
    from click.testing import CliRunner

    main = importlib.import_module(f"tests.benchmarks.{module}").main
    if isinstance(main, click.Command):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(click.Path, "convert", lambda self, value, param, ctx: Path(value))
            patch.setattr(main, "callback", None)
            result = CliRunner().invoke(main, arguments)
        return result.output if result.exit_code else None
    original = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *_: object) -> None:
        original(self, arguments)
        raise Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        try:
            main()
        except Parsed:
            return None
        except SystemExit:
            return f"{module} {shlex.join(arguments)}"
    return f"{module} takes no arguments"


def benchmark_commands(text: str) -> list[tuple[str, list[str]]]:
    """Every `python -m tests.benchmarks.MODULE ARGUMENTS`, as module and arguments."""
    prefix = "tests.benchmarks."
    return [
        (first.removeprefix(prefix), rest)
        for first, *rest in commands(text, "python -m")
        if first.startswith(prefix)
    ]


def test_there_are_documents() -> None:
    assert {"README.md", "CONTRIBUTING.md"} <= {name_of(path) for path in DOCUMENTS}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    assert broken_links(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", [p for p in DOCUMENTS if name_of(p) not in WIDE], ids=name_of)
def test_lines_of_prose_are_short(path: Path) -> None:
    assert long_lines(path.read_text(encoding="utf-8")) == []


def test_long_lines_are_found() -> None:
    long = "word " * 21
    kept = f"| {long} |\n\n    {long}\n```text\n{long}\n```\n`{'x' * 120}`\n"
    assert long_lines(kept) == []
    assert long_lines(f"{kept}{long}\n* {long}\n") == [long, f"* {long}"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_commands_are_accepted(path: Path, refusal: Refusal) -> None:
    found = commands(path.read_text(encoding="utf-8"), "onnxprune")
    assert [problem for one in found if (problem := refusal(one))] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_benchmarks_are_accepted(path: Path) -> None:
    found = benchmark_commands(path.read_text(encoding="utf-8"))
    assert [problem for one in found if (problem := benchmark_refuses(*one))] == []


def test_benchmarks_can_be_refused() -> None:
    text = "```sh\nX=1 python -m tests.benchmarks.relevance --nonsense 3\n```\n"
    (one,) = benchmark_commands(text)
    assert one == ("relevance", ["--nonsense", "3"])
    assert benchmark_refuses(*one) is not None
    assert benchmark_refuses("compare_methods", ["--nonsense"]) is not None
    assert benchmark_refuses("compare_methods", ["-o", "missing", "--reference", "x.tar"]) is None
    shown = {module for path in DOCUMENTS for module, _ in benchmark_commands(path.read_text())}
    assert {"compare_methods", "graph", "latency", "networks", "relevance", "search"} <= shown


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_commands_in_sentences_exist(path: Path, refusal: Refusal) -> None:
    prose = FENCE.sub("", path.read_text(encoding="utf-8"))
    named = set(re.findall(r"`onnxprune ([a-z]+)", prose))
    assert named - set(refusal.main.commands) == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_tasks_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"tasks\.py ([a-z]+)", text))
    tasks = (ROOT / "tasks.py").read_text(encoding="utf-8")
    known = set(re.findall(r"^    python3 tasks\.py (\w+)", tasks, re.MULTILINE))
    assert known
    assert named - known == set()


@pytest.mark.parametrize("path", SESSIONS, ids=name_of)
def test_python_sessions_print_what_they_show(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxprune.ops import OPS

    monkeypatch.chdir(tmp_path)
    known = set(OPS)
    try:
        result = doctest.testfile(str(path), module_relative=False, encoding="utf-8")
    finally:
        for described in OPS.keys() - known:
            del OPS[described]
    assert result.attempted > 0
    assert result.failed == 0


def test_every_page_on_how_to_is_in_the_list() -> None:
    pages = {f"how-to/{path.name}" for path in (ROOT / "docs" / "how-to").glob("*.md")}
    listed = set(links((ROOT / "docs" / "how-to.md").read_text(encoding="utf-8")))
    assert pages - listed == set(), "add a row to docs/how-to.md"


def test_every_tutorial_on_adding_is_a_session() -> None:
    pages = {name_of(path) for path in (ROOT / "docs" / "how-to").glob("add-*.md")}
    assert len(pages) >= 4
    assert pages <= set(map(name_of, SESSIONS))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_files_that_are_named_exist(path: Path) -> None:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    named = re.findall(r"`((?:onnxprune|converters|tests|samples|docs)/[\w/.-]*)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.slow
def test_the_readme_can_be_followed_from_an_empty_folder(tmp_path: Path) -> None:
    readme.follow(tmp_path)
    assert {"small.onnx", "sample", "onnxprune-demo"} <= {p.name for p in tmp_path.iterdir()}


def test_the_readme_is_short_and_shows_what_can_be_followed() -> None:
    assert readme.README.read_text(encoding="utf-8").count("\n") < 120
    shown = [step[-1].split()[:2] for step in readme.steps()]
    for command in ("demo", "prune", "compare"):
        assert ["onnxprune", command] in shown
    assert shown[-1][0] == "import"


def test_broken_links_are_found() -> None:
    text = "# A b\n[x](missing.md) [y](LICENSE) [z](#a-b) [w](#c) `[v](code)` [u](https://a.b)\n"
    assert broken_links(ROOT / "CONTRIBUTING.md", text) == ["missing.md", "#c"]


def test_commands_are_read_as_a_shell_would() -> None:
    text = (
        "```sh\nX=1 onnxprune inspect m.onnx --json | jq .  # all\n"
        "onnxprune prune m.onnx \\\n  -o 'a b.onnx' 2> log && cd x\n```\n"
        "```console\n$ onnxprune demo\nonnxprune printed this\n```\n"
        "```text\nonnxprune is a word\n```\n"
    )
    assert commands(text, "onnxprune") == [
        ["inspect", "m.onnx", "--json"],
        ["prune", "m.onnx", "-o", "a b.onnx"],
        ["demo"],
    ]


@pytest.mark.parametrize(
    "line", ["nonsense", "inspect --nonsense m.onnx", "inspect", "prune m.onnx -o o.onnx --rate x"]
)
def test_wrong_commands_are_refused(line: str, refusal: Refusal) -> None:
    assert refusal(line.split()) is not None


def test_right_commands_are_accepted(refusal: Refusal) -> None:
    assert refusal(["inspect", "missing.onnx", "--json"]) is None
