"""Documents that are bombs are refused at once; others are read as Python's own parsers read them."""

import json
import math
from xml.etree import ElementTree

import pytest
import yaml

from yolox_jax.data.sources.documents import DocumentError, parse_json, parse_xml, parse_yaml, shortened
from yolox_jax.weights import strict_json

_LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("parse", "data", "message"),
    [
        (parse_json, b"[" * 100_000, "nested too deeply"),
        (parse_json, b'{"a":' * 100_000, "nested too deeply"),
        (parse_json, b'{"a": 1', "is not valid json .Expecting"),
        (parse_json, b"", "not valid json"),
        (parse_json, b"\xff\xff\xff", "is not valid json .'utf-8' codec can't decode"),
        (parse_json, rb'["\ud800"]', r"has the text '\\ud800', which no file or terminal can store"),
        (parse_json, rb'{"\uDFFF": 1}', "which no file or terminal"),
        (parse_json, rb'["a\u0000b"]', "which no file or terminal"),
        (
            parse_json,
            b'{"a": [{"bbox": 1, "id": 7, "bbox": 2}]}',
            "has 'bbox' with two values in one object, {'bbox': 2, 'id': 7}",
        ),
        (parse_json, '{"a": {}, "\\u0061" : []}'.encode("utf-16"), "has 'a' with two values in one object"),
        (parse_yaml, b"train: x\nnames: [a]\ntrain: y", "has 'train' with two values in one mapping, in lines 1 and 3"),
        (
            parse_yaml,
            b"names:\n  0: cat\n  1: dog\n  '0': cow",
            "has '0' with two values in one mapping, in lines 2 and 4",
        ),
        (parse_yaml, b"a: [{b: [1], b: [2]}]", "has 'b' with two values in one mapping, in lines 1 and 1"),
        (parse_yaml, _LAUGHS.encode(), "repeats a list or a mapping by an alias in line 2"),
        (parse_yaml, b"a: &a [*a]", "repeats a list or a mapping by an alias in line 1"),
        (parse_yaml, b"[" * 10_000, "nested too deeply"),
        (parse_yaml, b"a: " * 3 + b"1", "is not valid yaml .mapping values"),
        (parse_yaml, b"a: \xff", "not valid yaml"),
        (parse_yaml, b"a: b\n\tc: d", "is not valid yaml .while scanning .*cannot start any token in line 2.$"),
        (parse_yaml, b"a: b\n---\nc", "is not valid yaml .expected a single document .*another document in line 2.$"),
        (parse_yaml, b"names: [" + b"a, " * 2_000_000 + b"]", "has 6000009 bytes, more than"),
        (parse_yaml, rb'a: "\ud800"', "which no file or terminal"),
        (parse_xml, b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "declares an entity"),
        (parse_xml, "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>".encode("utf-16"), "declares an entity"),
        (parse_xml, b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>", "declares an entity"),
        (parse_xml, b"<a>" * 100_000, "nested too deeply"),
        (parse_xml, b"<a>&b;</a>", "is not valid xml .undefined entity"),
        (parse_xml, b"<a>", "is not valid xml .no element found"),
        (parse_xml, b"", "is not valid xml .no element found"),
        (parse_xml, b"<?xml version='1.0' encoding='klingon'?><a/>", "not valid xml"),
        (parse_xml, b"<?xml version='1.0' encoding='gb18030'?><a/>", "not valid xml"),
    ],
)
def test_a_bomb_or_a_damaged_document_is_refused_with_the_reason(parse, data, message):
    with pytest.raises(DocumentError, match=message):
        parse(data)


def test_a_key_that_repeats_its_value_loses_nothing():
    assert parse_json(b'{"a": [{"b": 1, "c": {"d": 2}, "c": {"d": 2}}]}') == {"a": [{"b": 1, "c": {"d": 2}}]}
    assert parse_yaml(b"a: [{b: 1, b: 1}]\nc: {d: [2]}\nc: {d: [2]}") == {"a": [{"b": "1"}], "c": {"d": ["2"]}}


@pytest.mark.parametrize("parse", [parse_json, strict_json.parse])
def test_the_repeated_key_of_a_large_object_is_found_at_once(parse):
    data = "{" + "".join(f'"{number}": 0, ' for number in range(300_000)) + '"299999": 1}'
    with pytest.raises(ValueError, match="has '299999' (with two values in one object|twice)"):
        parse(data.encode())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_may_have_a_byte_order_mark(encoding):
    content = {
        "name": "Straße 😀 \u2028",
        "id": -(10**17),
        "list": [1.5e300, None, True],
        "long": 0.12345678901234567890,
    }
    assert parse_json(json.dumps(content).encode(encoding)) == content
    assert parse_json(json.dumps(content, ensure_ascii=False).encode(encoding)) == content


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_whole_number_that_does_not_fit_64_bits_is_infinite(encoding):
    text = f"[{'9' * 400}, -{'9' * 20}, {'9' * 18}, {'9' * 30}.5, {'1' * 5000}]"
    assert parse_json(text.encode(encoding)) == [math.inf, -math.inf, 10**18 - 1, 1e30, math.inf]


@pytest.mark.parametrize("text", ["a: no\nb: [1, 2.5, ~]\nc: {0: x}", "a: &x text\nb: *x", "- ä\n- '😀'"])
def test_yaml_is_texts_only(text):
    assert parse_yaml(text.encode()) == yaml.load(text, yaml.BaseLoader)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_xml_is_that_of_elementtree(encoding):
    text = (
        "<a xmlns='http://x/' xmlns:y='z'><b y:c='&lt;'>&#228; &amp; <!-- no -->ä</b><y:d/>tail<e><![CDATA[<]]></e></a>"
    )
    declared = encoding.removesuffix("-sig")
    data = f"<?xml version='1.0' encoding='{declared}'?><!DOCTYPE a>{text}".encode(encoding)
    assert ElementTree.tostring(parse_xml(data)) == ElementTree.tostring(ElementTree.fromstring(data))


def test_a_message_does_not_repeat_a_long_value():
    assert shortened("x" * 1000) == f"'{'x' * 47}...{'x' * 48}'"
    assert shortened([1] * 1000) == "[1, 1, 1, 1, 1, 1, ...]"
    assert shortened([]) == "[]"
