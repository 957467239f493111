"""Parses the JSON that a run writes about itself, and that anyone may have edited, cut or replaced since.

Python's own parser takes NaN, names given twice, and numbers and nesting without measure.
"""

import collections
import json
import math
import re
import reprlib
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

_MOST_DIGITS = 18  # of a whole number: more may not fit 64 bits
_MOST_DEPTH = 20  # a config has 4
# Half of a surrogate pair, or the character 0: no file can store it, and no terminal shows it.
_UNUSABLE = re.compile("[\ud800-\udfff\0]")

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


class FieldError(ValueError):
    """A text is not JSON, or a field is not what it must be. The message follows the file's name."""


def parse(data: bytes, any_text: bool = False) -> Any:
    """Parses JSON in UTF-8.

    Raises:
      FieldError: it is not JSON, or has a number that is not finite or has more than 18 digits, a name twice in one
        object, more than 20 levels, or, unless `any_text`, a text that cannot be stored.
    """
    try:
        content = _DECODER.decode(data.decode())
    except RecursionError as error:
        raise FieldError("is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise FieldError(f"is not text in UTF-8 (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise FieldError(f"is not valid JSON ({error})") from error
    _check_texts_and_depth(content, any_text)
    return content


def check_names(fields: Any, required: Sequence[str], optional: Collection[str] = ()) -> None:
    """Raises a FieldError unless `fields` is an object with these names, and no others."""
    if not isinstance(fields, dict):
        raise FieldError(f"is {shown(fields)}, not an object")
    for name in required:
        if name not in fields:
            raise FieldError(f"the field {name!r} is missing")
    for name in fields:
        if name not in required and name not in optional:
            raise FieldError(f"the field {shown(name)} is unknown")


def check_whole(name: str, value: Any, least: int, most: int) -> None:
    """Raises a FieldError unless a value is a whole number in this range."""
    if type(value) is not int or not least <= value <= most:
        raise FieldError(f"{name} is {shown(value)}, not a whole number from {least} to {most}")


def shown(value: object) -> str:
    """Returns a value as JSON has it, cut to a line."""
    return {"None": "null", "True": "true", "False": "false"}.get(text := _SHORT.repr(value), text)


def _check_texts_and_depth(content: Any, any_text: bool) -> None:
    waiting = [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _MOST_DEPTH:
            raise FieldError("is nested too deeply")
        if isinstance(value, dict):
            waiting += [(each, depth + 1) for pair in value.items() for each in pair]
        elif isinstance(value, list):
            waiting += [(each, depth + 1) for each in value]
        elif isinstance(value, str) and not any_text and _UNUSABLE.search(value):
            raise FieldError(f"has the text {shown(value)}, which no file or terminal can store")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        ((most, _),) = collections.Counter(name for name, _ in pairs).most_common(1)
        raise FieldError(f"has {shown(most)} twice")
    return fields


def _whole_number(text: str) -> int:
    if len(text.removeprefix("-")) > _MOST_DIGITS:
        raise FieldError(f"has a number of {len(text)} digits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise FieldError(f"has the number {text[:40]}, which is too large")
    return value


def _refuse(text: str) -> NoReturn:
    raise FieldError(f"has {text}, which is no number of JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_whole_number, parse_float=_number, parse_constant=_refuse
)
