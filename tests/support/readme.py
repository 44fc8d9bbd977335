"""Follow README.md as a new user: run what it shows, from an empty folder.

    python -I tests/support/readme.py

Needs nothing but an installed onnxprune. `tasks.py release` runs it in empty environments.
"""

import importlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).resolve().parent.parent.parent / "README.md"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INSTALLS = ("pip ", "git ", "python3 tasks.py")


def steps() -> list[list[str]]:
    """The commands of README.md, without those that install."""
    found = []
    for language, body in BLOCK.findall(README.read_text(encoding="utf-8")):
        if language == "python":
            found.append([sys.executable, "-c", body])
        else:
            lines = [line for line in body.splitlines() if not line.startswith(INSTALLS)]
            found += [["sh", "-c", line] for line in lines if line.strip()]
    return found


def follow(folder: Path) -> None:
    """Run every step in `folder`, with the programs beside this Python first."""
    programs = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": os.pathsep.join([programs, os.environ["PATH"]])}
    for step in steps():
        sys.stdout.write(f"$ {step[-1]}\n")
        sys.stdout.flush()
        subprocess.run(step, cwd=folder, env=environment, check=True)


def check_rooms() -> None:
    """Every room of this checkout can be imported, and type checkers find the types."""
    package = Path(importlib.import_module("onnxprune").__file__ or "").parent
    assert (package / "py.typed").is_file()
    checkout = README.parent / "onnxprune"
    for room in sorted(checkout.glob("*/__init__.py")):
        importlib.import_module(f"onnxprune.{room.parent.name}")
    assert importlib.import_module("onnxprune.converters").CONVERTERS


if __name__ == "__main__":
    check_rooms()
    with tempfile.TemporaryDirectory() as empty:
        follow(Path(empty))
