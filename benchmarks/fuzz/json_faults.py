"""Changes of json documents that keep them valid json, or nearly so."""

import copy
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.fuzz.change import Change

_DEEP, _TWICE, _LONG = "@deep@", "@twice@", "@long@"  # replaced in the text, since no value is written so
_DEPTH, _DIGITS = 100_000, 400

VALUES: tuple[Any, ...] = (
    *(None, True, False, [], {}, "", 0, -1, 1, 2, 1.0, 1.5, -1.5, 10**12, -(10**12), 10**17, 1e300, 1e-300),
    *(math.nan, math.inf, -math.inf, "x", "1", "-1", "nan", "é", "\ud800", "a\0b", "²", "a" * 70_000),
    *("../x", "/dev/zero", ".", "trapped.Feature", "os.system", "__import__('trapped')", "%s%n{0}", "$(touch x)"),
    *([[]], [None], [1, 2], {"a": 1}, [1, "2", None], [0.5] * 4, [-5, -5, 1e9, 1e9], _DEEP, _LONG),
)


def change_json(path: Path, rng: random.Random) -> Change:
    """Changes one or two places of a json file."""
    content = json.loads(path.read_bytes())
    texts = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        content, text = change_value(content, rng)
        texts.append(text)
    path.write_bytes(dump(content).encode("utf-8", "surrogatepass"))
    return Change(f"{path.name}: {'; '.join(texts)}")


def change_value(content: Any, rng: random.Random) -> tuple[Any, str]:
    """Returns a changed copy of a value made of dicts and lists, and what was changed."""
    content = copy.deepcopy(content)
    places = list(_places(content))
    if not places:
        return rng.choice(VALUES), "replaced as a whole"
    holder, key, name = rng.choice(places)
    kind = rng.choice(("value", "value", "value", "value", "remove", "twice", "rename", "swap", "add"))
    value = rng.choice(VALUES)
    if kind == "value":
        holder[key] = value
        return content, f"{name} = {repr(value)[:60]}"
    if kind == "remove":
        del holder[key]
    elif kind == "twice" and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif kind == "twice":
        holder[_TWICE + key] = value
    elif kind == "rename" and isinstance(holder, dict):
        holder[f"x_{key}"] = holder.pop(key)
    elif kind == "add" and isinstance(holder, dict):
        holder["another"] = value
    else:
        kind = "swap"
        last = str(key)
        others = [(there, its_key, its) for there, its_key, its in places if isinstance(key, int) or its_key == last]
        there, its_key, its = rng.choice(others)
        if not (isinstance(there, list) and its_key >= len(there)):
            holder[key], there[its_key] = copy.deepcopy(there[its_key]), copy.deepcopy(holder[key])
        name += f" and {its}"
    return content, f"{name}: {kind}"


def dump(content: Any) -> str:
    """Returns the json text, with keys that occur twice, long numbers and deep lists where they were put."""
    text = json.dumps(content, ensure_ascii=False)
    text = text.replace("\ud800", "\\ud800").replace(f'"{_TWICE}', '"')
    text = text.replace(f'"{_DEEP}"', "[" * _DEPTH + "]" * _DEPTH)
    return text.replace(f'"{_LONG}"', "7" * _DIGITS)


def _places(value: Any, name: str = "") -> Iterator[tuple[Any, Any, str]]:
    keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
    for key in keys:
        yield value, key, f"{name}.{key}"
        if isinstance(value[key], dict | list):
            yield from _places(value[key], f"{name}.{key}")
