"""Parses json, yaml and xml of unknown origin: what it nests, repeats or counts cannot take all time and memory."""

import json
import math
import re
import reprlib
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import yaml  # type: ignore[import-untyped]  # it ships no type information

MAX_CLASSES = 20_000  # the largest public set of boxes has 600; at 640x640, 20,000 take 670 MB an image
_MOST_DIGITS = 18  # of a whole number: more may not fit 64 bits
_DIGITS_AS_ZEROS = bytes(ord("0") if chr(byte) in "0123456789" else 1 for byte in range(256))
_MOST_YAML = 4 << 20  # bytes: the longest list of classes has 100 kB, and Python's parser takes a second a megabyte
_MOST_XML_DEPTH = 100  # VOC has 4
# Half of a surrogate pair, or the character 0: no file can be named so, and no terminal shows it.
_UNUSABLE = re.compile("[\ud800-\udfff\0]")
_UNUSABLE_ESCAPE = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)")


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100


class DocumentError(ValueError):
    """A document is not valid, or asks for more than any data set needs. The message follows the file's name."""


def parse_json(data: bytes) -> Any:
    """Parses json in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    A whole number of more than 18 digits becomes an infinity, so that the checks of ids, sizes and boxes reject it.

    Raises:
      DocumentError: it is not valid, is nested too deeply, has a key with two values in one object, or a text that
        cannot be stored or shown.
    """
    # Asking Python for each number takes a third longer, so only where there is a long one.
    has_long = b"0" * (_MOST_DIGITS + 1) in data.translate(_DIGITS_AS_ZEROS) or b"\0" in data[:4]  # UTF-16 or UTF-32
    try:
        content = json.loads(data, parse_int=_whole_number if has_long else None, object_pairs_hook=_object)
    except DocumentError:
        raise
    except RecursionError as error:
        raise DocumentError("is nested too deeply") from error
    except ValueError as error:  # bad json, or bad utf-8
        raise DocumentError(f"is not valid json ({error})") from error
    if _UNUSABLE_ESCAPE.search(data):  # rare; pairs of surrogates, which are right, are escaped like halves
        check_texts(content)
    return content


def parse_yaml(data: bytes) -> Any:
    """Parses yaml in UTF-8 or UTF-16 into dicts, lists and texts: a class named `no` stays a text.

    Raises:
      DocumentError: it is not valid, is nested too deeply or too long, has a key with two values in one mapping, a
        text that cannot be stored or shown, or repeats a list or dict by an alias: nine lines can stand for a billion
        entries.
    """
    if len(data) > _MOST_YAML:
        raise DocumentError(f"has {len(data)} bytes, more than the {_MOST_YAML} that are read")
    try:
        content = yaml.load(data, _YamlLoader)
    except DocumentError:
        raise
    except RecursionError as error:
        raise DocumentError("is nested too deeply") from error
    except yaml.MarkedYAMLError as error:
        what = ", ".join(part for part in (error.context, error.problem) if part)
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DocumentError(f"is not valid yaml ({what}{where})") from error
    except (yaml.YAMLError, ValueError) as error:
        raise DocumentError(f"is not valid yaml ({' '.join(str(error).split())})") from error
    check_texts(content)
    return content


class _YamlLoader(yaml.BaseLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        is_alias, mark = self.check_event(yaml.AliasEvent), self.peek_event().start_mark
        node = super().compose_node(parent, index)
        if is_alias and not isinstance(node, yaml.ScalarNode):
            raise DocumentError(f"repeats a list or a mapping by an alias in line {mark.line + 1}")
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        fields = super().construct_mapping(node, deep)
        if len(fields) < len(node.value):
            # Keys are texts: a list would have been an error. Values are not made again, but looked up.
            place = _contradicted([(key.value, self.construct_object(value)) for key, value in node.value], fields)
            if place is not None:
                keys = [key for key, _ in node.value]
                twice = keys[place].value
                *_, last = (key.start_mark.line + 1 for key in keys if key.value == twice)
                where = f"in lines {keys[place].start_mark.line + 1} and {last}"
                raise DocumentError(f"has {shortened(twice)} with two values in one mapping, {where}")
        return fields


def parse_xml(data: bytes) -> ElementTree.Element:
    """Parses xml as ElementTree does, but without entities of its own.

    Raises:
      DocumentError: it is not valid, is nested too deeply, or declares an entity.
    """
    tree = ElementTree.TreeBuilder()
    parser = expat.ParserCreate(namespace_separator="}")
    depth = 0

    def name(text: str) -> str:  # as ElementTree writes it: {namespace}tag
        return f"{{{text}" if "}" in text else text

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MOST_XML_DEPTH:
            raise DocumentError("is nested too deeply")
        tree.start(name(tag), {name(key): value for key, value in attributes.items()})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        tree.end(name(tag))

    def refuse_entity(*_: object) -> None:
        raise DocumentError("declares an entity, which no annotation needs")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = tree.data
    parser.EntityDeclHandler = refuse_entity
    parser.buffer_text = True
    try:
        parser.Parse(data, True)
    except DocumentError:
        raise
    except (expat.ExpatError, LookupError, ValueError) as error:  # the last two: an encoding that expat does not know
        raise DocumentError(f"is not valid xml ({error})") from error
    return tree.close()


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
            raise DocumentError(f"has the text {shortened(value)}, which no file or terminal can store")


def shortened(value: object) -> str:
    """Returns repr(value), cut to a line: a few entries of each list and dict, the ends of a long text."""
    return _SHORT.repr(value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes the dict of a json object. A file of COCO's size is parsed as fast as without this."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        place = _contradicted(pairs, fields)
        if place is not None:
            raise DocumentError(f"has {shortened(pairs[place][0])} with two values in one object, {shortened(fields)}")
    return fields


def _contradicted(pairs: list[tuple[str, Any]], fields: dict[str, Any]) -> int | None:
    """Returns the place of the first key that has another value later; one that repeats its value loses nothing."""
    return next((place for place, (key, value) in enumerate(pairs) if fields[key] != value), None)


def _whole_number(text: str) -> int | float:
    if len(text.removeprefix("-")) <= _MOST_DIGITS:
        return int(text)
    return -math.inf if text.startswith("-") else math.inf
