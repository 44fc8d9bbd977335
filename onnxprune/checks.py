"""What a value that users give must be, said once for Python, for JSON and for the command line.

A class of settings states the rule of each field beside its default (`asked`). Values are checked
when an object of the class is made (`Checked`), where scalars of NumPy become Python's and lists
become tuples. The command line takes its types and its help from the same rules.

>>> Number(above=0, most=1, share=True)("rate", 0.5)
0.5
>>> Number(above=0, most=1, share=True)("rate", 50)
Traceback (most recent call last):
onnxprune.errors.InvalidValue: rate 50: expected a number above 0, at most 1; for 50 %, give 0.5
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NoReturn

import numpy as np

from onnxprune.errors import InvalidType, InvalidValue, UnknownName, check_name

LARGEST = 2**53
"""Up to here a whole number is the same number in JSON."""
SHOWN = 60
"""Characters of a wrong value that an error repeats."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a value must be.

    `help` is what the command line says about it, `metavar` the word that stands for its value
    there. `also` checks what `take` lets through. An `optional` value may be None: not asked for.
    """

    help: str = ""
    metavar: str | None = None
    optional: bool = False
    also: Callable[[Any], object] | None = None

    def __call__(self, name: str, value: Any) -> Any:
        """Return the value as it is kept.

        Raises: InvalidType, InvalidValue, or what `also` raises, naming `name` and the value.
        """
        found = self.take(name, value)
        if self.also is not None and found is not None:
            self.also(found)
        return found

    def take(self, name: str, value: Any) -> Any:
        """Return what a call returns, without asking `also`.

        Raises: InvalidType or InvalidValue naming `name` and the value.
        """
        return None if value is None and self.optional else self._take(name, value)

    def read(self, text: str) -> Any:
        """Return the value that a text on the command line stands for; itself where it is none."""
        return text

    @property
    def expected(self) -> str:
        """What is expected, as an error says it."""
        raise NotImplementedError

    def _take(self, name: str, value: Any) -> Any:
        raise NotImplementedError

    def _wrong_type(self, name: str, value: Any, hint: str = "") -> NoReturn:
        what = f"{name} {shown(value)}" if is_plain(value) else name
        raise InvalidType(f"{what}: is {kind_of(value)}; expected {self.expected}{hint}")

    def _wrong(self, name: str, value: Any, hint: str = "") -> NoReturn:
        raise InvalidValue(f"{name} {shown(value)}: expected {self.expected}{hint}")


@dataclass(frozen=True, kw_only=True)
class Number(Rule):
    """A number in a range, or one of a few `words`; a text may say a `share` in percent: 50%."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    whole: bool = False
    share: bool = False
    words: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """Such as: a whole number, 1 or more."""
        noun = "a whole number" if self.whole else "a number"
        words = f", or {' or '.join(self.words)}" if self.words else ""
        if self.least is not None and self.most is not None:
            return f"{noun} from {self.least} to {self.most}{words}"
        low = f" above {self.above}" if self.above is not None else ""
        low = f", {self.least} or more" if self.least is not None else low
        return f"{noun}{low}" + (f", at most {self.most}" if self.most is not None else "") + words

    def read(self, text: str) -> Any:
        """Return the number that is written, if one is."""
        digits = text.strip().removesuffix("%")
        percent = self.share and digits != text.strip()
        for kind in (int, float):
            try:
                number = kind(digits if percent else text)
            except ValueError:
                continue
            if not percent:
                return number
            return number / 100 if 0 <= number <= 100 else text
        return text

    def _take(self, name: str, value: Any) -> float | str:
        if isinstance(value, str) and value in self.words:
            return value
        kinds = (int, np.integer) if self.whole else (int, float, np.integer, np.floating)
        if isinstance(value, bool) or not isinstance(value, kinds):
            self._wrong_type(name, value, self._percent(value))
        number = value.item() if isinstance(value, np.generic) else value
        most = LARGEST if self.most is None else self.most
        too_low = (self.least is not None and number < self.least) or (
            self.above is not None and number <= self.above
        )
        if too_low or number > most or math.isnan(number):
            self._wrong(name, value, self._percent(number))
        return number if self.whole else float(number)

    def _percent(self, value: Any) -> str:
        """Say how a percentage is written, where the value seems to be one."""
        if isinstance(value, str) and value.strip().endswith("%"):
            share = self.read(value)
            return "" if share == value else f"; for {value}, give {share:g}"
        if self.share and self.most == 1 and isinstance(value, int | float) and 0 < value <= 100:
            return f"; for {value:g} %, give {value / 100:g}"
        return ""


@dataclass(frozen=True, kw_only=True)
class Choice(Rule):
    """One of a few names."""

    of: Collection[str] = ()

    @property
    def expected(self) -> str:
        """Such as: one of auto, cpu, cuda."""
        return f"one of {', '.join(self.of)}"

    def _take(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            self._wrong_type(name, value)
        check_name(name, value, self.of)
        return str(value)


@dataclass(frozen=True, kw_only=True)
class Names(Rule):
    """Several texts; the command line takes them in one, with commas, or in several options."""

    of: str = "names"
    commas: bool = False

    @property
    def expected(self) -> str:
        """Such as: a list of names."""
        return f"a list of {self.of}"

    def read(self, text: str) -> Any:
        """Return the names between the commas."""
        return tuple(filter(None, map(str.strip, text.split(",")))) if self.commas else text

    def _take(self, name: str, value: Any) -> tuple[str, ...]:
        if isinstance(value, str):
            self._wrong_type(name, value, f", as in [{value!r}]")
        if isinstance(value, bytes | Mapping) or not isinstance(value, Iterable):
            self._wrong_type(name, value)
        found = tuple(value)
        for one in found:
            if not isinstance(one, str):
                raise InvalidType(
                    f"{name}: {shown(one)} in it is {kind_of(one)}; expected {self.expected}"
                )
            if not one:
                raise InvalidValue(f"{name}: '' in it is no name; expected {self.expected}")
        return tuple(map(str, found))


@dataclass(frozen=True, kw_only=True)
class Text(Rule):
    """One text; a path, where it is one, or a function that `name_of` names are kept as texts.

    `known` are those that the command line completes.
    """

    of: str = "a name"
    known: Collection[str] = ()
    path: bool = False
    name_of: Callable[[Any], str] | None = None

    @property
    def expected(self) -> str:
        """Such as: a name or a function."""
        return f"{self.of} or a function" if self.name_of else self.of

    def _take(self, name: str, value: Any) -> str:
        if self.path and isinstance(value, os.PathLike):
            value = os.fspath(value)
        if self.name_of is not None and callable(value) and not isinstance(value, type):
            try:
                return self.name_of(value)
            except UnknownName as error:
                raise UnknownName(f"{name}: {error}") from error
        if not isinstance(value, str):
            self._wrong_type(name, value)
        if not value:
            self._wrong(name, value)
        return str(value)


@dataclass(frozen=True, kw_only=True)
class Sizes(Rule):
    """The shape of one sample."""

    @property
    def expected(self) -> str:
        """Positive sizes of one sample."""
        return "positive sizes of one sample, without the batch axis, such as 3,224,224"

    def read(self, text: str) -> Any:
        """Return the sizes between the commas, if they are whole numbers."""
        try:
            return tuple(int(size) for size in text.split(","))
        except ValueError:
            return text

    def _take(self, name: str, value: Any) -> tuple[int, ...]:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            self._wrong_type(name, value)
        given = tuple(value)
        whole = [size for size in given if is_whole(size) and size > 0]
        if not given or len(whole) < len(given):
            self._wrong(name, given)
        return tuple(map(int, given))


@dataclass(frozen=True, kw_only=True)
class Pairs(Rule):
    """Values by name, kept as pairs; the command line takes one name and value in an option.

    `of` is the rule of the values; `between` stands before a value on the command line.
    """

    of: Rule
    between: str
    what: str
    example: str

    @property
    def expected(self) -> str:
        """Such as: a name and positive sizes, such as x:1,3,48,320."""
        return f"{self.what}, such as {self.example}"

    def read(self, text: str) -> Any:
        """Return the name and the value that a text holds, if it holds such."""
        name, found, value = text.rpartition(self.between)
        return ((name, self.of.read(value)),) if found else text

    def _take(self, name: str, value: Any) -> tuple[tuple[str, Any], ...]:
        if isinstance(value, str):
            self._wrong(name, value)
        if not isinstance(value, Iterable):
            key, _, one = self.example.rpartition(self.between)
            self._wrong_type(name, value, f", in Python as {{{key!r}: {self.of.read(one)}}}")
        pairs = tuple(value.items() if isinstance(value, Mapping) else value)
        return tuple(self._pair(name, pair) for pair in pairs)

    def _pair(self, name: str, pair: Any) -> tuple[str, Any]:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            self._wrong(name, pair)
        key, value = pair
        if not isinstance(key, str) or not key:
            self._wrong(name, pair)
        try:
            return str(key), self.of(name, value)
        except (InvalidType, InvalidValue):
            self._wrong(name, pair)


@dataclass(frozen=True, kw_only=True)
class Flag(Rule):
    """Yes or no; a text, as "no", is neither."""

    @property
    def expected(self) -> str:
        """True or False."""
        return "True or False"

    def _take(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool | np.bool_):
            self._wrong_type(name, value)
        return bool(value)


@dataclass(frozen=True, kw_only=True)
class Object(Rule):
    """An object of one of our classes, which `how` says to make."""

    kind: type = object
    how: str = ""

    @property
    def expected(self) -> str:
        """Such as: a Graph, as Graph.load returns it."""
        article = "an" if self.kind.__name__[0] in "AEIO" else "a"
        return f"{article} {self.kind.__name__}{self.how and f', {self.how}'}"

    def _take(self, name: str, value: Any) -> Any:
        if not isinstance(value, self.kind):
            self._wrong_type(name, value)
        return value


class Checked:
    """A class of settings whose fields are checked by their rules when an object is made."""

    def __post_init__(self) -> None:
        """Check every field, and keep it in its one form."""
        for name, rule in rules_of(type(self)).items():
            object.__setattr__(self, name, rule(name, getattr(self, name)))


def asked(rule: Rule, default: Any) -> Any:
    """Return a field of a settings class, with its rule."""
    return field(default=default, metadata={"rule": rule})


def rules_of(kind: type[Any]) -> dict[str, Rule]:
    """Return the rule of every field of a settings class."""
    return {one.name: one.metadata["rule"] for one in fields(kind)}


def is_whole(value: Any) -> bool:
    """Say whether a value is an integer of Python or NumPy, no truth value."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_plain(value: Any) -> bool:
    """Say whether a value can be repeated in an error."""
    return isinstance(value, str | bytes | int | float | list | tuple | dict | np.generic)


def shown(value: Any) -> str:
    """Return a plain value in one short line.

    >>> shown("a" * 100)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."
    """
    try:
        line = " ".join(repr(value).split())
    except ValueError:  # an integer of more digits than Python writes
        return "of thousands of digits"
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 3]}..."


def kind_of(value: Any) -> str:
    """Return what a value is, as people say it.

    >>> [kind_of(value) for value in (True, 1, "a", [1], None)]
    ['a bool', 'an integer', 'a string', 'a list', 'None']
    """
    if value is None:
        return "None"
    name = {"str": "string", "int": "integer", "ndarray": "array"}.get(
        type(value).__name__, type(value).__name__
    )
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


DEVICE = Choice(
    of=("auto", "cpu", "cuda", "tensorrt"),
    help="Where to compute; auto takes a GPU if there is one. tensorrt evaluates on onnxruntime's "
    "TensorRT.",
)
THREADS = Number(
    whole=True,
    least=0,
    most=1024,
    metavar="N",
    help="CPU threads; 0 uses all cores.",
)
BATCH_SIZE = Number(whole=True, least=1, metavar="N", help="Samples computed at once.")
SEED = Number(whole=True, least=0, metavar="N", help="Seed of all random numbers.")
