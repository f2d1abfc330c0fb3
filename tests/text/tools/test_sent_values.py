"""What models write that is no JSON, or no JSON for everybody, is sent on as JSON that everybody can read, from every tool format."""

import json

import pytest

from src.text.grammar import GrammarCompiler
from src.text.json_text import Halves
from src.text.tools import FORMATS
from src.text.tools.call import Call, Function
from tests.text.tools.test_formats import read
from tests.text.tools.test_tool_grammar import VOCABULARIES, Held

PLACE = "PLACE"
ANY = Function("f", {"type": "object", "properties": {"x": {}}})


def arguments(name: str, raw: str, function: Function = ANY) -> dict:
    """What arrives where a model writes `raw` as the value of x, which must not depend on how its text is cut."""
    written = FORMATS[name].write([Call("f", {"x": PLACE, "y": 1})])
    text = written.replace(f'"{PLACE}"', raw) if f'"{PLACE}"' in written else written.replace(PLACE, raw)
    whole = read(name, [text], [function])
    for pieces in [list(text), *([text[:place], text[place:]] for place in range(1, len(text)))]:
        assert read(name, pieces, [function]) == whole
    content, _, [(called, sent)] = whole
    assert (content, called) == ("", "f")
    sent.encode()
    value = json.loads(sent, parse_constant=_refuse, object_pairs_hook=_unique)
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    assert value.pop("y") == 1
    return value


def _refuse(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


def _unique(pairs: list[tuple[str, object]]) -> dict:
    assert len(pairs) == len(dict(pairs)), pairs
    return dict(pairs)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "word", ["NaN", "-NaN", "nan", "Infinity", "-Infinity", "+Infinity", "inf", "-inf", "Inf", "1e999", "-1e999", "9" * 400]
)
def test_a_number_that_is_none_arrives_as_its_text(name, word):
    assert arguments(name, word) == {"x": word}
    for raw, inner in ((f"[1, {word}]", [1, word]), (f'{{"a": {{"b": [{word}]}}}}', {"a": {"b": [word]}})):
        assert arguments(name, raw) == {"x": raw if name == "qwen3_coder" else inner}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("word", "value"), [("True", True), ("False", False), ("None", None)])
def test_pythons_words_arrive_as_what_they_mean(name, word, value):
    assert arguments(name, word) == {"x": value}
    raw = f'[{word}, {{"a": {word}}}]'
    assert arguments(name, raw) == {"x": raw if name == "qwen3_coder" else [value, {"a": value}]}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("escapes", "text"),
    [
        ("\\ud83d", "\ufffd"),
        ("\\uDE00", "\ufffd"),
        ("\\ud83d\\ude00", "😀"),
        ("\\ude00\\ud83d", "\ufffd\ufffd"),
        ("\\ud83d\\ud83d\\ude00", "\ufffd😀"),
        ("\\ud83d\\n", "\ufffd\n"),
        ("\\ud83dx\\ude00", "\ufffdx\ufffd"),
        ("\\\\ud83d", "\\ud83d"),
    ],
)
def test_half_a_surrogate_pair_is_replaced_and_a_whole_one_kept(name, escapes, text):
    assert arguments(name, f'["{escapes}"]') == {"x": [text]}


def test_a_pair_is_not_torn_by_how_its_parts_come():
    found: list[str] = []
    halves = Halves(found.append)
    for part in ('"', "\\ud83d", "\\ude00", "a", "\\ud83d", '"'):
        halves(part)
    assert json.loads("".join(found)) == "😀a\ufffd"


@pytest.mark.parametrize("name", FORMATS)
def test_an_object_has_each_name_once(name):
    first = {"qwen3_coder": 2}.get(name, 1)  # whose values are read as a whole
    assert arguments(name, '{"a": 1, "b": [{"c": 1}], "a": {"d": NaN}}' if first == 1 else '{"a": 1, "b": [{"c": 1}], "a": 2}') == {
        "x": {"a": first, "b": [{"c": 1}]}
    }
    assert arguments(name, '{"a": 1, "\\u0061": 2}') == {"x": {"a": first}}


def test_of_two_values_of_one_argument_the_first_stands():
    coder = "<function=f>\n<parameter=x>\n1\n</parameter>\n<parameter=x>\n2\n</parameter>\n<parameter=y>\n3\n</parameter>\n</function>"
    assert read("qwen3_coder", list(coder), [ANY])[2] == [("f", '{"x": 1, "y": 3}')]
    assert read("pythonic", list("[f(x=1, x=[2, {'a': 'b'}], y=3)]"), [ANY])[2] == [("f", '{"x": 1, "y": 3}')]
    assert read("hermes", list('<tool_call>{"name": "f", "arguments": {"x": 1, "x": 2, "y": 3}}</tool_call>'))[2] == [
        ("f", '{"x": 1, "y": 3}')
    ]


def test_arguments_that_are_json_in_a_string_are_mended_too():
    text = '<tool_call>{"name": "f", "arguments": "{\\"a\\": \\"\\\\ud83d\\"}"}</tool_call>'
    assert read("hermes", list(text))[2] == [("f", '{"a": "\ufffd"}')]


@pytest.mark.parametrize(
    ("types", "raw", "value"),
    [
        ("integer", "140.0", 140),
        ("integer", "1e3", 1000),
        ("integer", "-2.0", -2),
        ("integer", "1.5", "1.5"),
        ("integer", "1e999", "1e999"),
        (["integer", "null"], "140.0", 140),
        (["integer", "string"], "7.0", 7),
        ("number", "140.0", 140.0),
        (["integer", "number"], "1.0", 1.0),
        ("string", "140.0", "140.0"),
        ("boolean", "True", True),
        *(("any", "7", 7), ("int", "7", 7), ("dict", "{}", {}), (["str", "null"], "x", "x")),
    ],
)
def test_a_number_without_a_fraction_is_an_integer(types, raw, value):
    found = arguments("qwen3_coder", raw, Function("f", {"type": "object", "properties": {"x": {"type": types}}}))["x"]
    assert (found, type(found)) == (value, type(value))


HELD = [
    "<a>1</parameter>\n<b/>",
    "</parameter>",
    "x</parameter>y",
    "<parameter=a>1</parameter></parameter> text",
    "a\n</parameter>\n\n  <x>\n</parameter>\n",
    "</function>",
    "</tool_call>",
    "text </function></tool_call> text",
    "</parameter></func",
]


@pytest.mark.parametrize("text", HELD)
@pytest.mark.parametrize("schema", [{"type": "string"}, {}])
def test_a_value_may_hold_the_tag_that_ends_one(text, schema):
    assert arguments("qwen3_coder", text, Function("f", {"type": "object", "properties": {"x": schema}})) == {"x": text}


@pytest.mark.parametrize("end", ["</tool_call>", "\n</tool_call>", "</function>", "\n\n</function>\n</tool_call>"])
def test_a_call_may_leave_out_tags_that_end_it(end):
    for pieces in (
        [f"<tool_call><function=f><parameter=x>1</parameter>{end} So."],
        list(f"<function=f><parameter=x>1</parameter>{end} So."),
    ):
        content, _, found = read("qwen3_coder", pieces, [ANY])
        assert found == [("f", '{"x": 1}')]
        assert content.strip().endswith("So.")


def test_a_value_that_a_grammar_allows_is_the_one_that_is_read():
    compiler = GrammarCompiler(VOCABULARIES["markers are words"])
    try:
        held = Held("qwen3_coder", VOCABULARIES["markers are words"], compiler)
        properties = {"x": {"type": "string"}, "y": {"type": "integer"}, "z": {"type": "string", "maxLength": 60}}
        for required in ([], ["x"], ["x", "y"], ["z"], ["x", "y", "z"]):
            function = Function("f", {"type": "object", "properties": properties, "required": required}, strict=True)
            source = held.source(functions=[function], forced=True)
            for text in HELD:
                for given in (
                    {"x": text},
                    {"x": text, "y": 1},
                    {"x": text, "y": 1, "z": text},
                    {"z": text},
                    {"x": text, "z": "a"},
                    {"y": 1},
                ):
                    written = held.text([Call("f", given)])
                    assert held.allows(source, written) == set(required).issubset(given), (required, written)
                    assert json.loads(read("qwen3_coder", [written], [function])[2][0][1]) == given
            for text in ("a\n</parameter>\n<parameter=q>\nb", "a</parameter></tool_call>b", "a</parameter>\n</function>b"):
                assert not held.allows(source, held.text([Call("f", {"x": text, "y": 1, "z": "c"})]))
            assert not held.allows(source, held.text([Call("f", {"x": "a", "y": 1, "z": "c" * 61})]))
    finally:
        compiler.close()


def test_a_grammar_of_many_tools_says_nothing_twice():
    compiler = GrammarCompiler(VOCABULARIES["markers are words"])
    try:
        properties = {f"argument{number}": {"type": "string"} for number in range(300)}
        functions = [
            Function("f", {"type": "object", "properties": properties}),
            *(Function(f"f{number}", {"type": "object", "properties": {"a": {}}}) for number in range(50)),
        ]
        source = Held("qwen3_coder", VOCABULARIES["markers are words"], compiler).source(functions=functions, forced=True)
        assert source.count("[lazy]") == 2
        compiler.compile(source)
    finally:
        compiler.close()
