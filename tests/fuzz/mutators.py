"""Changes of inputs of any format: of bytes, and of the texts and numbers in them."""

from __future__ import annotations

import random
import re
import struct

LONGEST = 1 << 16
"""Bytes. An input does not grow beyond this."""

NUMBERS = (0, 1, -1, 2, 7, 127, 255, 2**15, 2**31 - 1, -(2**31), 2**32, 2**62, 2**63 - 1, -(2**63))
WORDS = (
    *(b"\x00", b"\xff\xfe", b"\n", b"\r\n", b"\x1b[2J", b"\x1b]0;t\x07", b"\xe2\x80\xae", b"\xc3"),
    *(b"../../x", b"/etc/passwd", b"C:\\x", b"~", b"<script>alert(1)</script>", b"'\"&<>", b"%s{}"),
    *(
        b"A" * 5000,
        b"nan",
        b"NaN",
        b"inf",
        b"-inf",
        b"1e999",
        b"null",
        b"true",
        b"[]",
        b"{}",
        b'""',
    ),
    *(b"__import__('os').system('x')", b"os:system", b"\xf0\x9f\x98\x80", b"-", b"--help", b" "),
)


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return bytes with one change: a bit, a byte, a piece, a number or a word."""
    change = rng.choice(CHANGES)
    return change(rng, data)[:LONGEST]


def _flip(rng: random.Random, data: bytes) -> bytes:
    if not data:
        return b"\x00"
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _set(rng: random.Random, data: bytes) -> bytes:
    if not data:
        return b"\xff"
    changed = bytearray(data)
    changed[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(changed)


def _cut(rng: random.Random, data: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + data[end:]


def _end(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randint(0, len(data))]


def _repeat(rng: random.Random, data: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 100)) + data[end:]


def _move(rng: random.Random, data: bytes) -> bytes:
    start, end = _span(rng, data)
    left, place = data[:start] + data[end:], rng.randint(0, len(data))
    return left[:place] + data[start:end] + left[place:]


def _number(rng: random.Random, data: bytes) -> bytes:
    """Overwrite some bytes by a number of 1 to 8 bytes, either end first."""
    size = rng.choice("bhiq")
    low, high = -(1 << (8 * struct.calcsize(size) - 1)), (1 << (8 * struct.calcsize(size) - 1)) - 1
    number = min(max(rng.choice(NUMBERS), low), high)
    packed = struct.pack(rng.choice("<>") + size, number)
    place = rng.randint(0, len(data))
    return data[:place] + packed + data[place + len(packed) :]


def _digits(rng: random.Random, data: bytes) -> bytes:
    """Put another number in place of one that is written in digits."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data))
    if not found:
        return _word(rng, data)
    one = rng.choice(found)
    new = rng.choice((*(str(n).encode() for n in NUMBERS), b"0.5", b"1e400", b"NaN", b'"1"', b""))
    return data[: one.start()] + new + data[one.end() :]


def _word(rng: random.Random, data: bytes) -> bytes:
    """Insert a word, or put it in place of one."""
    found, word = list(re.finditer(rb"[A-Za-z_]{2,}", data)), rng.choice(WORDS)
    if found and rng.random() < 0.5:
        one = rng.choice(found)
        return data[: one.start()] + word + data[one.end() :]
    place = rng.randint(0, len(data))
    return data[:place] + word + data[place:]


def _span(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + 1 + int(rng.expovariate(1 / 12)))


CHANGES = (_flip, _set, _cut, _end, _repeat, _move, _number, _digits, _word)
