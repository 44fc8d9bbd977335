#!/usr/bin/env python3
"""Everything there is to run in a checkout; needs Python 3.11 and nothing else.

    python3 tasks.py demo            install and prune the embedded sample, end to end
    python3 tasks.py test [ARGS]     install for development and run the tests but the slow ones
    python3 tasks.py check [--fast]  format, lint, types, all tests, documents; --fast: no tests
    python3 tasks.py mutants [ARGS]  plant faults in a copy and see the tests fall; ARGS: --help
    python3 tasks.py format          rewrite the sources in the house style
    python3 tasks.py docs            rewrite what is made from the code, and the site: build/site
    python3 tasks.py wheel           build the wheel, install it apart, and follow README.md there

Everything is installed into .venv beside this file, and again only when pyproject.toml or
constraints.txt has changed. ARGS go to pytest: `python3 tasks.py test tests/search -x`.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 -- so that an older one says so
    sys.exit("onnxprune needs Python 3.11 or newer, this is {}.{}".format(*sys.version_info[:2]))

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")

CONTAINS = {"cpu": ("cpu", "test"), "test": ("test",)}
"""The extras whose installation serves a request."""

TYPED = ("onnxprune", "converters", "tasks.py")
STYLED = (*TYPED, "samples", "tests", ".ci/site.py")


def demo(arguments: Sequence[str]) -> None:
    install("cpu")
    run("onnxprune", "demo", *arguments)


def test(arguments: Sequence[str]) -> None:
    install("test")
    given = any(argument == "-m" or argument.startswith("-m=") for argument in arguments)
    pytest(*(() if given else ("-m", "not slow and not campaign")), *arguments)


def check(arguments: Sequence[str]) -> None:
    unknown = sorted(set(arguments) - {"--fast"})
    if unknown:
        sys.exit(f"check: unknown argument {unknown[0]!r}; expected --fast or nothing")
    install("test")
    run("ruff", "format", "--check", *STYLED)
    run("ruff", "check", *STYLED)
    run("mypy", *TYPED)
    if not arguments:
        pytest("-m", "not campaign", "--cov", "--ignore", "tests/test_docs.py")
        mutants(["--part"])
    site()
    run("pytest", "-q", "tests/test_docs.py", "-m", "not slow" if arguments else "not campaign")


def mutants(arguments: Sequence[str]) -> None:
    install("test")
    run("python", "-m", "tests.mutants", *arguments)


def format_(arguments: Sequence[str]) -> None:
    if arguments:
        sys.exit(f"format: takes no arguments, found {arguments[0]!r}")
    install("test")
    run("ruff", "check", "--fix-only", *STYLED)
    run("ruff", "format", *STYLED)


def docs(arguments: Sequence[str]) -> None:
    if arguments:
        sys.exit(f"docs: takes no arguments, found {arguments[0]!r}")
    install("test")
    for module in ("ops.catalogue", "support.reference", "support.commands"):
        run("python", "-m", f"tests.{module}")
    site()


def site() -> None:
    """Build the documents as a site in build/site; a warning is a failure."""
    os.environ["NO_MKDOCS_2_WARNING"] = "1"  # about a version that is not installed
    run("python", "-m", "mkdocs", "build", "--strict", "--config-file", ".mkdocs.yml")


def wheel(arguments: Sequence[str]) -> None:
    """Build the wheel, and be a user who has nothing else, in an empty folder."""
    if arguments:
        sys.exit(f"wheel: takes no arguments, found {arguments[0]!r}")
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # setuptools would reuse what lies there
    with tempfile.TemporaryDirectory() as folder:
        apart = Path(folder) / "venv"
        venv.create(apart, with_pip=True)
        programs = apart / BIN.name
        pip = ("python", "-m", "pip", "--disable-pip-version-check", "--quiet")
        run(*pip, "wheel", "--no-deps", "-w", folder, ".", programs=programs)
        (built,) = Path(folder).glob("*.whl")
        run(*pip, "install", "-c", "constraints.txt", f"{built}[cpu]", programs=programs)
        run("python", "-I", "tests/support/readme.py", programs=programs)
    shutil.rmtree(ROOT / "build", ignore_errors=True)


TASKS: dict[str, Callable[[Sequence[str]], None]] = {
    "demo": demo,
    "test": test,
    "check": check,
    "mutants": mutants,
    "format": format_,
    "docs": docs,
    "wheel": wheel,
}


def install(extra: str) -> None:
    """Install the checkout with an extra into .venv, unless it is there and up to date."""
    state = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        state.update((ROOT / name).read_bytes())
    wanted = f"{state.hexdigest()} {ROOT}"
    for other in CONTAINS[extra]:
        stamp = VENV / f"installed-{other}"
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
            return
    if not (BIN / "python").exists() and not (BIN / "python.exe").exists():
        say(f"python3 -m venv {VENV.name}")
        try:
            venv.create(VENV, with_pip=True, clear=True)
        except subprocess.CalledProcessError:
            shutil.rmtree(VENV, ignore_errors=True)
            sys.exit("cannot make a virtual environment; on Debian: apt-get install python3-venv")
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # setuptools would reuse what lies there
    run(
        *("python", "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"),
        *("-c", "constraints.txt", "-e", f".[{extra}]"),
    )
    (VENV / f"installed-{extra}").write_text(wanted, encoding="utf-8")


def pytest(*arguments: str) -> None:
    """Run the tests on all cores, one thread of torch in each process."""
    workers = os.cpu_count() or 1
    parallel = ["-n", str(min(workers, 8)), "--dist", "worksteal"] if workers > 1 else []
    run("pytest", *parallel, *arguments, threads=1)


def run(program: str, *arguments: str, threads: int | None = None, programs: Path = BIN) -> None:
    """Run a program of .venv in the checkout, saying so; its failure is ours."""
    say(" ".join((program, *arguments)))
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    start = time.monotonic()
    code = subprocess.call([str(programs / program), *arguments], cwd=ROOT, env=environment)
    if code:
        sys.exit(f"{program} failed with exit status {code} after {time.monotonic() - start:.0f} s")


def say(line: str) -> None:
    print(f"\n$ {line}", flush=True)


def main() -> None:
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        print(__doc__)
    elif name in TASKS:
        TASKS[name](arguments)
    else:
        sys.exit(f"unknown task {name!r}; expected one of {', '.join(TASKS)}")


if __name__ == "__main__":
    main()
