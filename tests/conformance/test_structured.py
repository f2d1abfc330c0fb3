"""Answers that are held to a form. Every schema here has few answers, so that any model comes to an end."""

import json
import re
import time

import pytest

from tests.conformance.api import CHAT, COMPLETIONS

pytestmark = pytest.mark.feature("response_format")

CARD = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue"]},
        "sure": {"type": "boolean"},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
        "tags": {"type": "array", "items": {"const": "x"}, "minItems": 1, "maxItems": 3},
    },
    "required": ["colour", "sure", "count", "tags"],
    "additionalProperties": False,
}
ROOM = {"max_tokens": 300}
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


def as_format(schema: object, **fields: object) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "card", "schema": schema, "strict": True, **fields}}


def said(answer: dict) -> str:
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "stop"
    return choice["message"]["content"]


def check_card(text: str) -> None:
    card = json.loads(text)
    assert set(card) == set(CARD["properties"])
    assert card["colour"] in ("red", "green", "blue")
    assert isinstance(card["sure"], bool)
    assert card["count"] in range(10)
    assert card["tags"] in (["x"], ["x"] * 2, ["x"] * 3)


def test_an_answer_with_a_schema_validates(either):
    check_card(said(either.chat(response_format=as_format(CARD), **ROOM)))


@pytest.mark.parametrize("seed", range(3))
def test_it_does_so_at_a_high_temperature_too(either, seed):
    check_card(said(either.chat(response_format=as_format(CARD), temperature=2, seed=seed, **ROOM)))


def test_a_schema_that_is_not_strict_is_held_as_well(either):
    check_card(said(either.chat(response_format=as_format(CARD, strict=False), **ROOM)))


@pytest.mark.parametrize(
    ("schema", "values"),
    [
        ({"enum": ["a", "b"]}, ["a", "b"]),
        ({"const": {"k": [1, None, True]}}, [{"k": [1, None, True]}]),
        ({"type": "boolean"}, [True, False]),
        ({"type": "null"}, [None]),
        ({"anyOf": [{"const": 1}, {"const": "one"}]}, [1, "one"]),
        ({"$ref": "#/$defs/side"}, ["left", "right"]),
        ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": False, "minItems": 2}, [[1, 2]]),
        ({"type": "string", "pattern": "^(yes|no)$"}, ["yes", "no"]),
        ({"type": "integer", "minimum": 3, "maximum": 5}, [3, 4, 5]),
        ({"enum": ["日本", "🌍"]}, ["日本", "🌍"]),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_schemas_of_every_kind_are_held(either, schema, values):
    wrapped = {"type": "object", "properties": {"it": schema}, "required": ["it"], "additionalProperties": False}
    wrapped["$defs"] = {"side": {"enum": ["left", "right"]}}
    assert json.loads(said(either.chat(response_format=as_format(wrapped), **ROOM)))["it"] in values


def test_properties_come_in_the_schemas_order(either):
    schema = {
        "type": "object",
        "properties": {name: {"const": 1} for name in "zay"},
        "required": list("zay"),
        "additionalProperties": False,
    }
    assert list(json.loads(said(either.chat(response_format=as_format(schema), **ROOM)))) == list("zay")


def test_an_answer_that_is_cut_says_so(either):
    answer = either.chat(response_format=as_format(CARD), max_tokens=3)
    assert answer["choices"][0]["finish_reason"] == "length"


def test_json_object_begins_an_object_whatever_the_model(either):
    answer = either.chat("Give me JSON.", response_format={"type": "json_object"}, max_tokens=40)
    (choice,) = answer["choices"]
    assert choice["message"]["content"].lstrip().startswith("{")
    if choice["finish_reason"] == "stop":
        assert isinstance(json.loads(choice["message"]["content"]), dict)


def test_the_type_text_asks_for_nothing(either):
    assert either.chat(response_format={"type": "text"})["choices"] == either.chat()["choices"]


def test_several_choices_are_all_held(either):
    answer = either.chat(response_format=as_format(CARD), n=2, temperature=1, seed=5, **ROOM)
    for choice in answer["choices"]:
        check_card(choice["message"]["content"])


def test_logprobs_go_with_a_schema(either):
    answer = either.chat(response_format=as_format(CARD), logprobs=True, top_logprobs=1, **ROOM)
    spelled = b"".join(bytes(entry["bytes"]) for entry in answer["choices"][0]["logprobs"]["content"])
    assert spelled.decode() == said(answer)


@pytest.mark.feature("guided_json")
@pytest.mark.parametrize("as_text", [False, True], ids=["object", "text"])
def test_guided_json_is_held_in_chats_and_texts(either, as_text):
    schema = json.dumps(CARD) if as_text else CARD
    check_card(said(either.chat(guided_json=schema, **ROOM)))
    check_card(either.complete(guided_json=schema, **ROOM)["choices"][0]["text"])


@pytest.mark.feature("guided_choice")
@pytest.mark.parametrize("choices", [["yes"], ["yes", "no"], ["a", "ab", "abc"], ["oui / non", "\\n", '"', "日本"]], ids=str)
def test_guided_choice_is_one_of_them(either, choices):
    assert said(either.chat(guided_choice=choices, **ROOM)) in choices
    assert either.complete(guided_choice=choices, **ROOM)["choices"][0]["text"] in choices


@pytest.mark.feature("guided_regex")
@pytest.mark.parametrize("regex", ["[0-9]{3}", "(red|green) [a-c]{2}", r"\d{2}/\d{2}", "x{5}y?", "[äöü]{2}"])
def test_guided_regex_matches(either, regex):
    assert re.fullmatch(regex, said(either.chat(guided_regex=regex, **ROOM)))
    assert re.fullmatch(regex, either.complete(guided_regex=regex, **ROOM)["choices"][0]["text"])


@pytest.mark.feature("guided_grammar")
def test_guided_grammar_is_followed(either):
    grammar = 'start: noun " " verb\nnoun: "cats" | "dogs"\nverb: "run" | "sleep"'
    assert said(either.chat(guided_grammar=grammar, **ROOM)) in ("cats run", "cats sleep", "dogs run", "dogs sleep")


@pytest.mark.feature("structured_outputs")
@pytest.mark.parametrize(
    ("outputs", "regex"),
    [
        ({"choice": ["yes", "no"]}, "yes|no"),
        ({"regex": "[0-9]{2}"}, "[0-9]{2}"),
        ({"grammar": 'start: "a" "b"'}, "ab"),
        ({"json": {"enum": ["k"]}}, '"k"'),
    ],
    ids=str,
)
def test_structured_outputs_are_vllms_newer_spelling(either, outputs, regex):
    assert re.fullmatch(regex, said(either.chat(structured_outputs=outputs, **ROOM)))


@pytest.mark.feature("refusals of schemas")
@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"response_format": "json"}, "invalid_value", "response_format"),
        ({"response_format": {}}, "missing_required_parameter", "response_format.type"),
        ({"response_format": {"type": "xml"}}, "invalid_value", "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "invalid_value", "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "missing_required_parameter", "response_format.json_schema.name"),
        ({"response_format": as_format({"type": "object"}, name="a b")}, "invalid_value", "response_format.json_schema.name"),
        ({"guided_regex": ""}, "invalid_value", "guided_regex"),
        ({"guided_choice": []}, "invalid_value", "guided_choice"),
        ({"guided_choice": ["a", ""]}, "invalid_value", "guided_choice[1]"),
        ({"guided_json": "{"}, "invalid_value", "guided_json"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "invalid_value", "guided_choice"),
        ({"guided_regex": "("}, "invalid_schema", "guided_regex"),
        ({"guided_regex": "(?=a)b"}, "invalid_schema", "guided_regex"),
        ({"guided_grammar": "start: missing"}, "invalid_schema", "guided_grammar"),
        ({"guided_grammar": 'root ::= "a"'}, "invalid_schema", "guided_grammar"),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else "",
)
def test_what_no_answer_can_be_held_to_is_refused_by_name(api, fields, code, param):
    api.refuse(CHAT, {**HELLO, **fields}, 400, code, param)


@pytest.mark.feature("refusals of schemas")
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("uniqueItems", True),
        ("not", {"const": 1}),
        ("propertyNames", {"maxLength": 1}),
        ("contains", {"const": 1}),
        ("dependentSchemas", {"a": {"required": ["b"]}}),
    ],
)
def test_a_keyword_that_cannot_be_enforced_is_named(api, keyword, value):
    body = {**HELLO, "response_format": as_format({"type": ["array", "object"], keyword: value}), "max_tokens": 4}
    api.refuse(CHAT, body, 400, "invalid_schema", "response_format", told=keyword)


@pytest.mark.feature("refusals of schemas")
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {f"property_{number}": {"type": "string"} for number in range(20_000)}},
        json.loads('{"type":"array","items":' * 50 + "{}" + "}" * 50),
    ],
    ids=["large", "deep"],
)
def test_a_schema_that_is_too_large_or_too_deep_is_refused_soon(api, schema):
    began = time.monotonic()
    api.refuse(CHAT, {**HELLO, "response_format": as_format(schema)}, 400, "invalid_schema", "response_format")
    assert time.monotonic() - began < 60


@pytest.mark.feature("refusals of schemas")
def test_an_expression_that_explodes_is_refused_soon_and_the_server_goes_on(api):
    began = time.monotonic()
    body = {"prompt": "a", "guided_regex": "(a|aa|aaa|b{1,999}){1,999}(c{1,999}d{1,999}){1,999}", "max_tokens": 2}
    response = api.post(COMPLETIONS, body)
    assert response.status_code in (200, 400)
    assert time.monotonic() - began < 60
    assert api.chat()["choices"]
