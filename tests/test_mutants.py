"""The list of faults, and what plants them: on a tree of one module and one test."""

import subprocess
from pathlib import Path

import pytest

from tests.mutants import ROOT, Mistake, Mutant, changed_here, load, main, part, shard, touched

MUTANTS = load(ROOT / "tests" / "mutants.toml")
FEWEST = 300

MODULE = '''
def half(x: int) -> int:
    """Half of an even number."""
    while x % 2:
        x += 1
    return x // 2
'''
TEST = """
from onnxprune.module import half


def test_half() -> None:
    assert [half(x) for x in (0, 4, 7)] == [0, 2, 4]
"""
FAULTS = {
    "killed": ("return x // 2", "return x // 3"),
    "survived": ("x += 1", "x = x + 1"),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in (("onnxprune/module.py", MODULE), ("tests/test_module.py", TEST)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\npythonpath = ["."]\naddopts = ["--import-mode=importlib"]\n'
    )
    return tmp_path


def ask(tree: Path, faults: dict[str, tuple[str, str]], *arguments: str) -> int:
    """Plant faults in the tree; return the exit status."""
    lines = ['["onnxprune/module.py"]', 'tests = ["tests/test_module.py"]', "mutants = ["]
    lines += [f"{{name = '{n}', old = '{a}', new = '{b}'}}," for n, (a, b) in faults.items()]
    (tree / "tests" / "mutants.toml").write_text("\n".join([*lines, "]"]))
    return main(["--jobs", "1", *arguments], tree)


# The list


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_every_fault_can_be_planted(mutant: Mutant) -> None:
    """What has changed in the sources must change in the list."""
    assert mutant.plant(ROOT) != (ROOT / mutant.file).read_text(encoding="utf-8")
    assert "\n" not in mutant.new
    assert all((ROOT / test).exists() for test in mutant.tests)


def test_there_are_enough_of_them_and_none_twice() -> None:
    assert len({str(mutant) for mutant in MUTANTS}) == len(MUTANTS) >= FEWEST
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)


# What becomes of them


def test_a_fault_is_killed_or_survives(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(tree, FAULTS) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == list(FAULTS)
    assert lines[2] == "1 killed, 1 survived"
    assert (tree / "onnxprune" / "module.py").read_text() == MODULE
    assert ask(tree, FAULTS, "--only", "module.py: killed") == 0


@pytest.mark.slow
def test_tests_that_hang_have_noticed(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.mutants.LEAST_PATIENCE", 10.0)
    assert ask(tree, {"never even": ("x += 1", "pass")}) == 0
    assert capsys.readouterr().out.endswith("onnxprune/module.py: never even\n1 hung\n")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return x // 4", "", "module.py: f: 'return x // 4' is there 0 times, expected once"),
        ("x", "y", "is there 4 times, expected once: update it"),
        ("return x // 2", "return x /", "'return x /' is not Python there: invalid syntax"),
        ("def half", "def third", "tests could not be run with a fault in place"),
    ],
)
def test_a_fault_that_cannot_be_planted_is_an_error(
    tree: Path, old: str, new: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(tree, {"f": (old, new)}) == 2
    assert message in capsys.readouterr().err


def test_tests_must_pass_without_any_fault(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "tests" / "test_module.py").write_text(TEST.replace("[0, 2, 4]", "[0, 2, 3]"))
    assert ask(tree, FAULTS) == 2
    expected = "mutants: tests/test_module.py: do not pass without any fault (101)\n"
    assert capsys.readouterr().err == expected


# Which of them


@pytest.mark.parametrize("count", [1, 2, 7])
def test_shards_are_all_mutants_each_once(count: int) -> None:
    parts = [shard(MUTANTS, f"{k}/{count}") for k in range(1, count + 1)]
    assert sorted(str(one) for some in parts for one in some) == sorted(map(str, MUTANTS))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("which", ["0/2", "3/2", "1", "a/b"])
def test_a_shard_that_is_none_is_refused(which: str) -> None:
    with pytest.raises(Mistake, match=f"--shard '{which}': expected I/N"):
        shard(MUTANTS, which)


def test_a_change_asks_for_the_mutants_of_its_files_and_of_its_tests() -> None:
    first = MUTANTS[0]
    for file in (first.file, first.tests[0]):
        assert first in touched(MUTANTS, {file, "README.md"})
    assert touched(MUTANTS, {"README.md"}) == []
    chosen = part(MUTANTS, {first.file}, ROOT)
    assert sorted(map(str, chosen)) == sorted(map(str, touched(MUTANTS, {first.file})))


def test_where_nothing_changed_the_sources_say_which_mutants_come_first(tree: Path) -> None:
    """The same sources, the same part: what passed once is not refused another day."""
    mutants = [Mutant("a.py", str(k), "", "", ()) for k in range(50)]
    firsts = set()
    for k in range(400):
        (tree / "a.py").write_text(f"x = {k}\n")
        chosen = part(mutants, set(), tree)
        assert chosen == part(mutants, set(), tree)
        assert sorted(map(str, chosen)) == sorted(map(str, mutants))
        firsts.add(str(chosen[0]))
    assert firsts == set(map(str, mutants))


def test_git_says_what_changed_on_a_branch_and_on_main(tree: Path) -> None:
    def git(*arguments: str) -> None:
        names = ("-c", "user.name=n", "-c", "user.email=e")
        subprocess.run(["git", *names, *arguments], cwd=tree, check=True, capture_output=True)

    def commit(name: str) -> None:
        (tree / name).write_text("a line\n")
        git("add", ".")
        git("commit", "-m", name)

    assert changed_here(tree) == set()
    git("init", "-b", "main")
    commit("one.py")
    assert changed_here(tree) == set()
    commit("two.py")
    assert changed_here(tree) == {"two.py"}
    git("checkout", "-b", "branch")
    commit("three.py")
    commit("four.py")
    (tree / "five.py").write_text("not committed\n")
    assert changed_here(tree) == {"three.py", "four.py", "five.py"}
    assert ask(tree, FAULTS, "--changed", "no-such-revision") == 2
