"""JSON and calls in JSON are read the same wherever the text is cut, and nothing but JSON is taken for it."""

import json

import pytest

from src.text.output.reader import Reading
from src.text.tools.call import Function
from src.text.tools.json_call import MOST_DEPTH, JsonReader

FUNCTIONS = [Function("now"), Function("f")]


class ValueReader(JsonReader):
    """One value, then content."""

    def __init__(self) -> None:
        self.value: list[str] = []
        self.whole: bool | None = None
        super().__init__([])

    def _read(self) -> Reading[None]:
        self.whole = yield from self._json(self.value.append)
        while (yield from self._peek()):
            self._content(self._take(len(self._text) - self._at))
        self._finish()


class CallsReader(JsonReader):
    def __init__(self, bare: bool) -> None:
        self._bare = bare
        super().__init__(FUNCTIONS)

    def _read(self) -> Reading[None]:
        self._begin()
        if not (yield from self._json_call(bare=self._bare)):
            self._fail()
        while (yield from self._peek()):
            self._content(self._take(len(self._text) - self._at))
        self._finish()


def cuts(text: str) -> list[list[str]]:
    return [[text], list(text), *([text[:place], text[place:]] for place in range(1, len(text)))]


def value(pieces: list[str]) -> tuple[bool | None, str, str]:
    """Whether it was a whole value, its text, and what came behind it."""
    reader = ValueReader()
    behind = "".join(reader.push(piece).content for piece in pieces) + reader.flush().content
    return reader.whole, "".join(reader.value), behind


def call(pieces: list[str], bare: bool) -> tuple[str | None, str, str]:
    """A call's name and arguments, and what is content."""
    reader = CallsReader(bare)
    deltas = [*map(reader.push, pieces), reader.flush()]
    parts = [part for delta in deltas for part in delta.calls]
    name = parts[0].name if parts else None
    return name, "".join(part.arguments for part in parts), "".join(delta.content for delta in deltas)


NESTED = ["[" * depth + "]" * depth for depth in (1, 2, MOST_DEPTH)]
WHOLE = [
    *("{}", "[]", "0", "-1.5e-3", "true", "false", "null", '""', '"a\\"\\\\\\u00e9\\n é😀"', "[1, 2]", '{"a": 1}'),
    ' { "a" : [ 1 , "b" , { } ] ,\n "c": [ [ ] , null ]\t}',
    '[{"a": {"b": [true, false, null]}}, "\\ud83d\\ude00", -0.0, 1E+9]',
]
WRONG = [
    *("", " ", "]", "}", ":", ",", "[1 2]", "[1,]", "[,1]", "[1}", "{1}", '{"a"}', '{"a" 1}', '{"a":}', '{"a": 1,}', '{"a": 1]'),
    *('{"a": 1 "b": 2}', "{a: 1}", "01", "1.", ".5", "+1", "tru", "True", "nulls", '"\\x"', '"\\u12g4"', "'a'", "[1", '{"a"', '"a'),
    "[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1),
    '{"a": ' * (MOST_DEPTH + 1) + "1" + "}" * (MOST_DEPTH + 1),
]


@pytest.mark.parametrize("text", WHOLE + NESTED)
def test_json_is_read_to_its_end_wherever_it_is_cut(text):
    for behind in ("", " then", "}", "]", ","):
        if text[-1].isalnum():
            behind = f" {behind}"  # a number or a word has no end of its own
        for pieces in cuts(text + behind):
            whole, found, rest = value(pieces)
            assert whole
            assert json.loads(found) == json.loads(text)
            assert found + rest == text + behind


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_json_or_not_all_of_it_is_told_wherever_it_is_cut(text):
    first, *others = [value(pieces) for pieces in cuts(text)]
    assert first[0] is False
    assert all(other == first for other in others)


def test_a_control_character_in_a_string_is_escaped():
    for pieces in cuts('"a\nb\x00"'):
        assert value(pieces) == (True, '"a\\nb\\u0000"', "")


CALLS = [
    ('{"name": "f", "arguments": {"a": [1, {"b": null}]}}', "f", '{"a": [1, {"b": null}]}', ""),
    ('{"name": "f", "parameters": {}} then', "f", "{}", " then"),
    ('{"arguments": {"a": 1}, "name": "f"}', "f", '{"a": 1}', ""),
    ('{"id": [1], "name": "f", "type": "function", "arguments": {"a": 1}, "more": {"name": "g"}}', "f", '{"a": 1}', ""),
    ('{"name": "f", "arguments": "{\\"a\\": 1}"}', "f", '{"a": 1}', ""),
    ('{"arguments": "{\\"a\\": 1}", "name": "f"}', "f", '{"a": 1}', ""),
    ('{"name": "f", "arguments": null}', "f", "{}", ""),
    ('{ "name" : "f" , "arguments" : { } }', "f", "{ }", ""),
    ('{"name": "f", "name": "now", "arguments": {}}', "f", "{}", ""),
    ('{"name": "f", "arguments": {"a": 1}, "parameters": {"a": 2}}', "f", '{"a": 1}', ""),
]
ONLY_IN_MARKERS = [  # that say it is a call
    ('{"name": "f"}', "f", "{}", ""),
    ('{"name": "other", "arguments": {}}', "other", "{}", ""),
]
NO_CALLS = [
    *("text", "{", "{}", '{"a": 1}', '{"name', '{"name": "f"', '{"arguments": {}}', '{"name": "f" "arguments": {}}'),
    *('{"name": NaN, "arguments": {}}', '{"name": 7, "arguments": {}}', '{"name": "", "arguments": {}}'),
    *('{"name": "f", "arguments": [1]}', '{"name": "f", "arguments": "no"}', '{"name": "f", "arguments": 1}'),
]


@pytest.mark.parametrize(("text", "name", "arguments", "content"), CALLS)
def test_a_call_is_read_the_same_wherever_it_is_cut(text, name, arguments, content):
    for pieces in cuts(text):
        assert call(pieces, bare=False) == call(pieces, bare=True) == (name, arguments, content)


@pytest.mark.parametrize(("text", "name", "arguments", "content"), ONLY_IN_MARKERS)
def test_a_call_without_arguments_or_of_an_unknown_function_needs_markers_around_it(text, name, arguments, content):
    for pieces in cuts(text):
        assert call(pieces, bare=False) == (name, arguments, content)
        assert call(pieces, bare=True) == (None, "", text)


@pytest.mark.parametrize("text", NO_CALLS)
def test_what_is_no_call_is_content_wherever_it_is_cut(text):
    for pieces in cuts(text):
        assert call(pieces, bare=False) == call(pieces, bare=True) == (None, "", text)


def test_arguments_come_piece_by_piece_once_the_name_is_known():
    reader = CallsReader(bare=True)
    reader.push('{"name": "f", "arguments": {"city": "Pa')
    [part] = reader.push("ris").calls
    assert (part.index, part.name, part.arguments) == (0, None, "ris")


def test_arguments_that_break_off_stay_said():
    for pieces in cuts('{"name": "f", "arguments": {"a": [1, "b'):
        name, arguments, content = call(pieces, bare=True)
        assert (name, arguments + content) == ("f", '{"a": [1, "b')
