"""Parses json files whose content is not trusted: what it nests, repeats or counts cannot take all time and memory."""

import json
import math
import re
from typing import Any

MAX_CLASSES = 20_000  # the largest public set of boxes has 600; at 640x640, 20,000 take 670 MB an image
_MOST_DIGITS = 18  # of a whole number: more may not fit 64 bits
_DIGITS_AS_ZEROS = bytes(ord("0") if chr(byte) in "0123456789" else 1 for byte in range(256))
# Half of a surrogate pair, or the character 0: no file can be named so, and no terminal shows it.
_UNUSABLE = re.compile("[\ud800-\udfff\0]")
_UNUSABLE_ESCAPE = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)")


class DocumentError(ValueError):
    """A document is not valid, or asks for more than any data set needs; the message gives the reason only."""


def parse_json(data: bytes) -> Any:
    """Parses json in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    A whole number of more than 18 digits becomes an infinity, so that the checks of ids, sizes and boxes reject it.

    Raises:
      DocumentError: it is not valid, is nested too deeply, or has a text that cannot be stored or shown.
    """
    # Asking Python for each number takes a third longer, so only where there is a long one.
    has_long = b"0" * (_MOST_DIGITS + 1) in data.translate(_DIGITS_AS_ZEROS) or b"\0" in data[:4]  # UTF-16 or UTF-32
    try:
        content = json.loads(data, parse_int=_whole_number if has_long else None)
    except RecursionError as error:
        raise DocumentError("it is nested too deeply") from error
    except ValueError as error:  # bad json, or bad utf-8
        raise DocumentError(f"it is not valid json: {error}") from error
    if _UNUSABLE_ESCAPE.search(data):  # rare; pairs of surrogates, which are right, are escaped like halves
        check_texts(content)
    return content


def check_texts(content: Any) -> None:
    """Checks every text in nested lists and dicts.

    Raises:
      DocumentError: one has half of a surrogate pair or the character 0.
    """
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.keys()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and _UNUSABLE.search(value):
            raise DocumentError(f"the text {shortened(value)} has a character that no file or terminal can store")


def shortened(value: object, most: int = 100) -> str:
    """Returns at most `most` characters of repr(value), without building all of it for a text, list or dict."""
    if isinstance(value, str):
        return repr(value[:most]) + (" …" if len(value) > most else "")
    if isinstance(value, list | tuple | dict):
        return f"{type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]} …"


def _whole_number(text: str) -> int | float:
    if len(text) <= _MOST_DIGITS:
        return int(text)
    return -math.inf if text.startswith("-") else math.inf
