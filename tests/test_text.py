"""No name obeys a terminal, a browser or GitHub: it is shown, wherever people read it."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from onnxprune.errors import InvalidModel
from onnxprune.text import harmless

ANYTHING = st.text(st.characters(codec=None), max_size=60)
OBEYED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(ANYTHING)
def test_no_character_is_obeyed(text: str) -> None:
    for shown in (harmless(text), harmless(text, lines=True)):
        assert not OBEYED & {unicodedata.category(one) for one in shown.replace("\n", "")}
        shown.encode()
        assert harmless(shown, lines=True) == shown
    assert "\n" not in harmless(text)
    assert harmless(text, lines=True).count("\n") == text.count("\n")


@given(st.text(st.characters(categories=["L", "N", "P", "S", "M"]), max_size=60))
def test_letters_stay(text: str) -> None:
    assert harmless(text) == text


@given(ANYTHING, st.integers(5, 80))
def test_a_long_text_keeps_its_ends(text: str, most: int) -> None:
    whole, short = harmless(text), harmless(text, most)
    assert len(short) <= most
    assert short == whole or (whole.startswith(short[:1]) and "..." in short)


def test_different_names_look_different() -> None:
    names = ["a", "a\x1b", "a\x07", "a\u202e", "a\u2066", "a\udcff", "a\udc80", "a\x9b"]
    assert len({harmless(name) for name in names}) == len(names)


def test_a_message_is_one_short_line() -> None:
    message = str(InvalidModel(f"{'a' * 50_000}\n\x1b]52;c;ZXZpbA==\x07: cannot be read"))
    assert len(message) <= 1000
    assert message.endswith(r" \x1b]52;c;ZXZpbA==\x07: cannot be read")
