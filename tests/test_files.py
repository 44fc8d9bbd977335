"""Files appear whole or not at all, and a place that cannot be written is found early."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onnxprune.errors import OutputError
from onnxprune.files import (
    append,
    check_apart,
    check_place,
    folder_to_fill,
    make_folder,
    move_whole,
    scratch,
    sweep,
    temporary,
    write_whole,
)
from onnxprune.locks import Held, locked

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
    for end in ("/", "/.", "/.."):
        with pytest.raises(OutputError, match=f"out{end}: names a folder; name a file"):
            check(f"{tmp_path}/out{end}")
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
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        with pytest.raises(OutputError, match="free some space"):
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


def test_what_others_wrote_is_on_the_disk_before_it_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr("os.fsync", lambda handle: done.append("sync") or sync(handle))
    monkeypatch.setattr(Path, "replace", lambda a, b: done.append(b.name) or replace(a, b))
    with scratch(tmp_path) as beside:
        for name in "ab":
            (beside / name).write_text(f"new {name}")
        move_whole([beside / "b", beside / "a"], tmp_path)
    assert done == ["sync", "sync", "b", "a", "sync"]
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"a": "new a", "b": "new b"}


def test_a_signal_leaves_nothing_wherever_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open
    for begin in (lambda: write(tmp_path / "a"), lambda: scratch(tmp_path).__enter__()):

        def stopped(*given: Any, **more: Any) -> int:
            monkeypatch.setattr(os, "open", real)
            os.close(real(*given, **more))
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "open", stopped)
        with pytest.raises(KeyboardInterrupt):
            begin()
        assert not list(tmp_path.iterdir())


def test_a_folder_that_is_in_use_is_not_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither later, nor between the moments when it is made and locked."""
    made, mkdir = list[Path](), Path.mkdir

    def swept_at_once(place: Path, mode: int) -> None:
        mkdir(place, mode)
        made.append(place)
        if len(made) == 1:
            sweep(tmp_path)

    monkeypatch.setattr(Path, "mkdir", swept_at_once)
    with scratch(tmp_path) as beside:
        sweep(tmp_path)
        assert beside.is_dir()
        assert beside == made[1]
    assert not list(tmp_path.iterdir())


def test_temporary_files_need_a_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with temporary() as folder:
        assert folder.is_dir()
    assert not folder.exists()
    monkeypatch.setattr("tempfile.gettempdir", full)
    with pytest.raises(OutputError, match="no folder for temporary files can be written to"):
        temporary().__enter__()


def test_a_new_folder_that_an_error_leaves_empty_goes(tmp_path: Path) -> None:
    for name, kept in (("new", False), ("old", True), ("filled", True)):
        if name == "old":
            (tmp_path / name).mkdir()
        with pytest.raises(KeyError), folder_to_fill(tmp_path / name) as folder:
            if name == "filled":
                (folder / "a").write_text("a")
            raise KeyError(name)
        assert (tmp_path / name).exists() == kept


@pytest.mark.parametrize("check", [write, check_place])
def test_what_is_no_file_is_never_replaced(tmp_path: Path, check: Write) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "round").symlink_to("round")
    for place in (tmp_path / "pipe", tmp_path / "link", Path(os.devnull)):
        with pytest.raises(OutputError, match="is a device or a named pipe; name a file to write"):
            check(place)
    for name in ("round", "a\0b", "long" * 100):
        with pytest.raises(OutputError, match="cannot be written"):
            check(tmp_path / name)
    assert (tmp_path / "pipe").is_fifo()
    assert Path(os.devnull).is_char_device()


def test_a_link_leads_to_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "other").hardlink_to(tmp_path / "a")
    (tmp_path / "link").symlink_to("a")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a").read_text() == "new"
    assert (tmp_path / "other").read_text() == "old"


def test_what_is_read_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("a", "code.py", "data/x.png"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "hard").hardlink_to(tmp_path / "a")
    for name in ("a", "link", "hard", "data/../a"):
        with pytest.raises(OutputError, match="that is read; name another file"):
            check_place(tmp_path / name, str(tmp_path / "a"))
    with pytest.raises(OutputError, match="that is read"):
        check_place(tmp_path / "code.py", f"{tmp_path}/code.py:build")
    with pytest.raises(OutputError, match=r"is in .*data, which is read"):
        check_place(tmp_path / "data" / "x.png", tmp_path / "data")
    for name in ("b", "data/new.onnx"):
        check_place(tmp_path / name, tmp_path / "a", tmp_path / "data", "generated:3", None)
    with pytest.raises(OutputError, match="named for two outputs"):
        check_apart(tmp_path / "b", None, tmp_path / "data" / ".." / "b")
    (tmp_path / "circle").symlink_to("circle")
    check_apart(tmp_path / "circle", tmp_path / "circle", "a\0b")


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    left, busy = (tmp_path / f".onnxprune-{digit * 16}" for digit in "0a")
    left.write_text("half of it")
    busy.write_text("another process is at it")
    mine = tmp_path / ".onnxprune-mine"
    mine.touch()
    with locked(busy), pytest.raises(Held), locked(busy):
        pass
    with locked(busy):
        write(tmp_path / "a")
        assert set(tmp_path.iterdir()) == {tmp_path / "a", busy, mine}
    write(tmp_path / "a")
    assert set(tmp_path.iterdir()) == {tmp_path / "a", mine}


def test_a_line_is_appended_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    append(path, "one\n")
    done: list[str] = []
    sync, put = os.fsync, os.write
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", lambda handle: done.append("sync") or sync(handle))
        patched.setattr("os.write", lambda handle, rest: put(handle, bytes(rest)[:2]))
        append(path, "three\n")
    assert (path.read_text(), done) == ("one\nthree\n", ["sync"])
    for name in ("fsync", "write"):
        monkeypatch.setattr(os, name, full)
        with pytest.raises(OutputError, match=r"No space left on device\); free some space"):
            append(path, "four\n")
        monkeypatch.undo()
        assert path.read_text() == "one\nthree\n"


def test_a_scratch_folder_goes_also_if_its_process_was_killed(tmp_path: Path) -> None:
    left = tmp_path / ".onnxprune-0123456789abcdef"
    left.mkdir()
    (left / "half").touch()
    with scratch(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]
        (folder / "a").touch()
        write(tmp_path / "b")
        assert set(tmp_path.iterdir()) == {folder, tmp_path / "b"}
    assert list(tmp_path.iterdir()) == [tmp_path / "b"]
