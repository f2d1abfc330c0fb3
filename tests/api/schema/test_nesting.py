"""Depth and number of JSON's lists and objects: exact, in a time that its size bounds."""

import json
import time

import pytest

from src.api.schema.nesting import Outline, has_more_values, is_deeper


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        ("1", 0),
        ("[]", 1),
        ("{}", 1),
        ("[[]]", 2),
        ('{"a": {}}', 2),
        ('[1, {"a": [2]}, []]', 3),
        ('{"a": [], "b": [[1]]}', 3),
        ('["[[[["]', 1),
    ],
)
def test_the_depth_is_that_of_the_deepest_list_or_object(text, depth):
    value = {"body": json.loads(text)}
    assert not is_deeper(value, depth + 1)
    assert is_deeper(value, depth)
    outline = Outline(json.dumps(value).encode())
    assert not outline.is_deeper(depth + 1)
    assert outline.is_deeper(depth)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("[]", 1),
        ('{"a": [{}, {}]}', 4),
        ('["[[[[", "{"]', 1),
        (r'["a\"[[[", {}]', 2),
        (r'["a\\", [], "[["]', 2),
        (r'["\\\"[", {}]', 2),
        (r'{"[": "\"", "{\"[": [[]]}', 3),
    ],
)
def test_brackets_in_strings_are_not_counted(text, count):
    json.loads(text)  # it is JSON
    assert not Outline(text.encode()).has_more_containers(count)
    assert Outline(text.encode()).has_more_containers(count - 1)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("[1, 2, 3]", 3),
        ('["a,b,c", ",", ""]', 3),
        ('{"a": 1, "b,": {"c": ","}}', 3),
        ('{"": "", "a": ""}', 2),
        ('{"[": "]", ",": ","}', 2),
        (r'["\\", "\",", "\\\","]', 3),
        ("[[1], [2, 3]]", 5),
    ],
)
def test_values_are_counted_without_names_and_what_stands_in_strings(text, count):
    json.loads(text)
    assert not Outline(text.encode()).has_more_values(count)
    assert Outline(text.encode()).has_more_values(count - 1)


def test_values_of_what_was_decoded_are_counted_in_all_its_parts():
    value = {"a": [1, 2, {"b": "text"}], "c": 1}
    assert not has_more_values(value, 6)
    assert has_more_values(value, 5)


def test_a_string_may_reach_over_the_pieces_that_a_text_is_looked_at_in():
    text = json.dumps(["[," * 50_000, "a", "]" * 70_000, "b"]).encode()
    outline = Outline(text)
    assert (outline.has_more_values(4), outline.has_more_values(3)) == (False, True)
    assert (outline.has_more_containers(1), outline.is_deeper(1)) == (False, False)


def test_a_text_with_many_brackets_is_one_string():
    outline = Outline(json.dumps({"prompt": '[{",' * 300_000}).encode())
    assert not outline.has_more_containers(2)
    assert not outline.has_more_values(2)


@pytest.mark.parametrize("part", [b"[]", b'"",', b'"[",', b'"a":1,', b'"\\"', b'"a"[', b"\\", b"{"], ids=repr)
def test_whatever_eight_megabytes_hold_they_are_counted_soon(part):
    began = time.process_time()
    outline = Outline(part * (8_000_000 // len(part)) + b"[" * 10)
    outline.has_more_containers(5)
    outline.has_more_values(5)
    assert time.process_time() - began < 2
