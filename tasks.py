#!/usr/bin/env python3
"""Everything there is to run in a checkout; needs Python 3.11 and nothing else.

    python3 tasks.py demo            install and prune the embedded sample, end to end
    python3 tasks.py test [ARGS]     install for development and run the tests but the slow ones
    python3 tasks.py check [--fast]  format, lint, types, all tests, documents; --fast: no tests
    python3 tasks.py mutants [ARGS]  plant faults in a copy and see the tests fall; ARGS: --help
    python3 tasks.py format          rewrite the sources in the house style
    python3 tasks.py docs            rewrite what is made from the code, and the site: build/site
    python3 tasks.py release [ARGS]  build and check what is published, install it apart with each
                                     Python (or those named: 3.12), and follow README.md there;
                                     --base: without torch, the base installation alone

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
        pytest("-m", "not campaign", "--ignore", "tests/test_docs.py")
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


def release(arguments: Sequence[str]) -> None:
    """Build what is published, and be a user who has nothing else, with each Python there is."""
    base, wanted = "--base" in arguments, [one for one in arguments if one != "--base"]
    if unknown := sorted(set(wanted) - set(PYTHONS)):
        sys.exit(f"release: found {unknown[0]!r}; expected --base or {', '.join(PYTHONS)}")
    found = {version: python for version in wanted or PYTHONS if (python := find_python(version))}
    if missing := ", ".join(one for one in wanted or PYTHONS if one not in found):
        if wanted:
            sys.exit(f"release: no Python {missing} here")
        say(f"release: no Python {missing} here, so it is not tried")
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # setuptools would reuse what lies there
    with tempfile.TemporaryDirectory() as folder:
        tools = empty_environment(sys.executable, Path(folder) / "tools")
        run(*PIP, "install", "build", "twine", programs=tools)
        built = Path(folder) / "dist"
        run("python", "-m", "build", "--outdir", str(built), ".", programs=tools)
        run("twine", "check", "--strict", *map(str, sorted(built.iterdir())), programs=tools)
        (wheel,) = built.glob("*.whl")
        for version, python in found.items():
            programs = empty_environment(python, Path(folder) / version)
            install_wheel = (*PIP, "install", "-c", "constraints.txt")
            run(*install_wheel, str(wheel), programs=programs)
            run("python", "-I", "tests/support/smoke.py", programs=programs)
            if not base:
                run(*install_wheel, f"{wheel}[cpu]", programs=programs)
                run("python", "-I", "tests/support/readme.py", programs=programs)
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    say(f"release: installed and tried with Python {', '.join(found)}")


PYTHONS = ("3.11", "3.12", "3.13")
"""Those that a release is tried with."""

PIP = ("python", "-m", "pip", "--disable-pip-version-check", "--quiet")


def find_python(version: str) -> str | None:
    """The path of a Python, if it is here: this one, on the path, or one of pyenv's."""
    if version == "{}.{}".format(*sys.version_info[:2]):
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    own = [str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python"))]
    return own[-1] if own else shutil.which(f"python{version}")


def empty_environment(python: str, place: Path) -> Path:
    """Make a virtual environment, and return the folder of its programs."""
    say(f"{python} -m venv {place}")
    subprocess.check_call([python, "-m", "venv", str(place)])
    return place / BIN.name


TASKS: dict[str, Callable[[Sequence[str]], None]] = {
    "demo": demo,
    "test": test,
    "check": check,
    "mutants": mutants,
    "format": format_,
    "docs": docs,
    "release": release,
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
