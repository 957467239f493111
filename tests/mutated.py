"""Changes texts as disks, editors and programs do: each result is the same for the same seed."""

import json
import random
from collections.abc import Iterator
from typing import Any

_ODD = (None, True, -1, 0, 1.5, 10**30, "", "²", "\ud800", [], {}, [[[[]]]], {"a": None})


def mutated_json(data: bytes, rng: random.Random, number: int) -> Iterator[bytes]:
    """Yields changed forms of a JSON: a field replaced, removed, added or moved; or its bytes, as `mutated`."""
    for _ in range(number):
        if rng.random() < 0.4:
            yield mutated(data, rng)
            continue
        content = json.loads(data)
        fields, name = rng.choice(list(_places(content)))
        match rng.randrange(4):
            case 0:
                fields[name] = rng.choice(_ODD)
            case 1:
                del fields[name]
            case 2:
                fields[name + "_" if isinstance(name, str) else name] = fields[name]
            case 3:
                fields[name] = float("nan") if rng.random() < 0.5 else rng.choice(list(_places(content)))[0]
        try:
            yield json.dumps(content).encode()
        except ValueError:  # a field that holds itself
            yield b"{" * 5000


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Returns the bytes cut, with a part removed, doubled, zeroed or replaced, or with a bit flipped."""
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    part = data[start:end]
    match rng.randrange(6):
        case 0:
            return data[:start]
        case 1:
            return data[:start] + data[end:]
        case 2:
            return data[:end] + part + data[end:]
        case 3:
            return data[:start] + bytes(len(part)) + data[end:]
        case 4:
            return data[:start] + rng.randbytes(len(part)) + data[end:]
    byte = min(start, len(data) - 1)
    return data[:byte] + bytes([data[byte] ^ 1 << rng.randrange(8)]) + data[byte + 1 :]


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every list or dict in a content, with each of its indices or names."""
    for name in content if isinstance(content, dict) else range(len(content)):
        yield content, name
        if isinstance(content[name], dict | list):
            yield from _places(content[name])
