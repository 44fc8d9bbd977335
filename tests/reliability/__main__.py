"""Kill commands, and let their system calls fail, and see that nothing is lost or hurt.

    python -m tests.reliability kills -o kills.jsonl
    python -m tests.reliability faults -o faults.jsonl
    python -m tests.reliability signals -o signals.jsonl
    python -m tests.reliability order -o order.jsonl

A line of the record is a case; one that is there already is not tried again, so a campaign goes on
where it was. `--share 1/20` tries one case in twenty. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.reliability.attempts import warm
from tests.reliability.campaign import Bench, Case, faults, kills, orders, run, signals
from tests.reliability.subject import COMMANDS, PAIRS, Subject


def cases(what: str, bench: Bench, seed: int, uniform: int) -> Iterator[Case]:
    if what in ("faults", "order"):
        return (faults if what == "faults" else orders)(bench)
    if what == "signals":
        return signals(bench, seed, uniform)
    return kills(bench, seed, uniform if bench.subject.resumes else 0)


def chosen(what: str, asked: list[str]) -> list[Subject]:
    found = [one for one in PAIRS + COMMANDS if not asked or one.name in asked]
    return [one.short for one in found] if what == "faults" else found


def main() -> int:
    """Run a campaign; 1 if something went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("what", choices=("kills", "faults", "signals", "order"))
    parser.add_argument("-o", "--output", type=Path, help="the record, a line for each case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--uniform", type=int, default=200, help="kills in time, for each run")
    parser.add_argument("--share", default="1/1", metavar="N/M", help="case N of every M")
    parser.add_argument("--subject", action="append", default=[], help="only these; repeatable")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after these")
    asked = parser.parse_args()
    first, step = map(int, asked.share.split("/"))
    done = {}
    if asked.output and asked.output.exists():
        lines = asked.output.read_text("utf-8").splitlines()
        done = {one["case"]: one for one in map(json.loads, lines)}
    warm()
    end = time.monotonic() + asked.seconds
    with tempfile.TemporaryDirectory() as folder:
        for number, subject in enumerate(chosen(asked.what, asked.subject)):
            bench = Bench(Path(folder) / str(number), subject)
            for k, case in enumerate(cases(asked.what, bench, asked.seed, asked.uniform)):
                if k % step != first - 1 or case.key in done or time.monotonic() > end:
                    continue
                count, wrong = run(case, bench)
                found = {"case": case.key, "kills": count, "wrong": wrong}
                done[case.key] = found
                if asked.output:
                    with asked.output.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(found) + "\n")
                if wrong:
                    sys.stderr.write(json.dumps(found) + "\n")
    bad = [one for one in done.values() if one["wrong"]]
    count = sum(one["kills"] for one in done.values())
    sys.stdout.write(f"{len(done)} cases, {count} kills, {len(bad)} wrong\n")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
