"""Depth and number of JSON's lists and objects: exact, in a time that its size bounds."""

import json
import time

import pytest

from src.api.nesting import has_more_containers, is_deeper


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
    assert not has_more_containers(text.encode(), count)
    assert has_more_containers(text.encode(), count - 1)


def test_a_text_with_many_brackets_is_one_string():
    assert not has_more_containers(json.dumps({"prompt": '[{"' * 300_000}).encode(), 2)


@pytest.mark.parametrize("part", [b"[]", b'"",', b'"\\"', b'"a"[', b"\\", b"{"], ids=repr)
def test_whatever_eight_megabytes_hold_they_are_counted_soon(part):
    began = time.process_time()
    has_more_containers(part * (8_000_000 // len(part)) + b"[" * 10, 5)
    assert time.process_time() - began < 2
