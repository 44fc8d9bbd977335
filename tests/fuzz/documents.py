"""Changes of JSON documents: of their bytes, and of one value where its syntax holds."""

from __future__ import annotations

import json
import random
from typing import Any

from tests.fuzz.mutators import LONGEST, mutate_bytes

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63), 10**30, 10**400),
    *(0.5, 1.5, -0.0, 1e15, 1e300, 5e-324, "", "x", "nan", "1e999", "../../x", "\x1b[2J", "\u202e"),
    *("<script>alert(1)</script>", "javascript:alert(1)", "\ud800", "A" * 3000, [], {}, [[]]),
    *([None], [0, 0], [[1, 2], [3]], {"a": 1}, {"": None}, {"__proto__": {}}, [0] * 500),
)


def mutate_json(rng: random.Random, data: bytes) -> bytes:
    """Return a document with one value changed, or its bytes where it is no JSON or by chance."""
    if rng.random() < 0.25:
        return mutate_bytes(rng, data)
    try:
        changed = json.dumps(_changed(rng, json.loads(data)), allow_nan=True).encode()
    except (ValueError, RecursionError):  # no JSON, or nested too deep
        return mutate_bytes(rng, data)
    return changed if len(changed) <= LONGEST else data


def _changed(rng: random.Random, held: Any, depth: int = 0) -> Any:
    """The same with a change somewhere below."""
    inner = isinstance(held, dict | list) and held and (depth == 0 or rng.random() < 0.8)
    if not inner:
        return _other(rng, held)
    key = rng.choice(list(held)) if isinstance(held, dict) else rng.randrange(len(held))
    chance = rng.random()
    if chance < 0.1:
        del held[key]
    elif chance < 0.15 and isinstance(held, dict):
        held[rng.choice(("x", "", "format", "class", "\x1b", "name"))] = held.pop(key)
    elif chance < 0.2 and isinstance(held, list):
        held.extend(held[key : key + 1] * rng.choice((1, 3, 200)))
    else:
        held[key] = _changed(rng, held[key], depth + 1)
    return held


def _other(rng: random.Random, held: Any) -> Any:
    number = isinstance(held, int | float) and not isinstance(held, bool)
    if number and rng.random() < 0.5:
        return held * rng.choice((-1, 2, 1000, 10**12)) + rng.choice((-1, 0, 1))
    if rng.random() < 0.05:
        deep: Any = held
        for _ in range(rng.choice((3, 90, 900))):
            deep = [deep] if rng.random() < 0.5 else {"a": deep}
        return deep
    return rng.choice(VALUES)
