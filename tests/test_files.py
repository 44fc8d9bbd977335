"""Files appear whole or not at all, and a place that cannot be written is found early."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onnxprune.errors import OutputError
from onnxprune.files import check_place, folder_to_fill, make_folder, write_whole

Write = Callable[[Path], object]


def write(path: Path) -> Path:
    return write_whole(path, b"new")


def full(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("content", [b"\x00\xff", "text \u2212"])
def test_what_is_written_is_read(tmp_path: Path, content: bytes | str) -> None:
    path = write_whole(str(tmp_path / "a"), content)
    expected = content.encode() if isinstance(content, str) else content
    assert path.read_bytes() == expected
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    path = write(tmp_path / "a")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match=r"a: cannot be written \(No space left on device\)"):
        write(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("check", [write, check_place])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, check: Write) -> None:
    with pytest.raises(OutputError, match="is a folder; name a file"):
        check(tmp_path)
    with pytest.raises(OutputError, match=r"missing/a: "):
        check(tmp_path / "missing" / "a")
    assert list(tmp_path.iterdir()) == []


def test_checking_a_place_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    assert check_place(path) == path
    assert check_place(tmp_path / "b") == tmp_path / "b"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(OutputError, match="choose another place"):
        check_place(tmp_path / "a")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="the folder is not writable"):
        make_folder(tmp_path)


def test_a_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b").is_dir()
    assert make_folder(str(tmp_path / "a")) == tmp_path / "a"
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be created"):
        make_folder(tmp_path / "file" / "c")


def test_the_umask_is_never_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.umask", lambda _: pytest.fail("changes the umask of the process"))
    write(tmp_path / "a")


def test_what_is_written_is_on_the_disk_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr("os.fsync", lambda handle: done.append("sync") or sync(handle))
    monkeypatch.setattr(Path, "replace", lambda a, b: done.append("name") or replace(a, b))
    write(tmp_path / "a")
    assert done == ["sync", "name", "sync"]


def test_a_new_folder_that_an_error_leaves_empty_goes(tmp_path: Path) -> None:
    for name, kept in (("new", False), ("old", True), ("filled", True)):
        if name == "old":
            (tmp_path / name).mkdir()
        with pytest.raises(KeyError), folder_to_fill(tmp_path / name) as folder:
            if name == "filled":
                (folder / "a").write_text("a")
            raise KeyError(name)
        assert (tmp_path / name).exists() == kept
