"""How far something is, is heard by whoever listens, and changes nothing."""

from onnxprune.progress import heard_by, track


def test_nobody_has_to_listen() -> None:
    assert list(track("looking", "abc", 3)) == ["a", "b", "c"]


def test_each_item_and_the_end_are_heard() -> None:
    heard: list[tuple[str, int, int]] = []
    with heard_by(lambda *said: heard.append(said)):
        for one in track("looking", "abc", 3):
            if one == "b":
                break
    assert heard == [("looking", 0, 3), ("looking", 1, 3), ("looking", 3, 3)]
    list(track("later", "a", 1))
    assert len(heard) == 3


def test_the_end_is_heard_once_where_more_comes_than_was_known() -> None:
    heard: list[tuple[str, int, int]] = []
    with heard_by(lambda *said: heard.append(said)):
        assert len(list(track("measuring", range(9), 2))) == 9
    assert heard == [("measuring", 0, 2), ("measuring", 1, 2), ("measuring", 2, 2)]
