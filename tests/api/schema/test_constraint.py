"""What an answer has to be, in OpenAI's and vLLM's words: one constraint for the runner, or an error that names the field."""

import json

import pytest

from src.api.schema import parse
from src.api.schema.chat import ChatRequest
from src.api.schema.completion import CompletionRequest
from src.errors import InvalidSchema, InvalidValue, MissingField, ServiceError, UnsupportedField

KINDS = {ChatRequest: {"messages": [{"role": "user", "content": "hi"}]}, CompletionRequest: {"prompt": "hi"}}
SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "string"}}}


def constraint(kind: type, **fields: object):
    parsed = parse(kind, {**KINDS[kind], **fields})
    return (parsed.chat() if kind is ChatRequest else parsed.completion()).generate().constraint


def as_format(schema: object, **fields: object) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "point", "schema": schema, **fields}}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("fields", "schema", "param"),
    [
        ({"response_format": as_format(SCHEMA)}, SCHEMA, "response_format"),
        ({"response_format": as_format(SCHEMA, strict=True, description="d")}, SCHEMA, "response_format"),
        ({"response_format": as_format(SCHEMA, strict=False)}, SCHEMA, "response_format"),
        ({"response_format": {"type": "json_object"}}, {"type": "object"}, "response_format"),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, SCHEMA, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "any"}}}, {"type": "object"}, "response_format"),
        ({"guided_json": SCHEMA}, SCHEMA, "guided_json"),
        ({"guided_json": json.dumps(SCHEMA)}, SCHEMA, "guided_json"),
        ({"structured_outputs": {"json": SCHEMA}}, SCHEMA, "structured_outputs.json"),
        ({"structured_outputs": {"json_object": True}}, {"type": "object"}, "structured_outputs.json_object"),
    ],
)
def test_a_schema_arrives_as_it_was_written(kind, fields, schema, param):
    found = constraint(kind, **fields)
    assert (found.form, found.param) == ("json_schema", param)
    assert json.dumps(json.loads(found.source)) == json.dumps(schema), "also in its order, which is the order of the answer"


@pytest.mark.parametrize(
    ("name", "value", "form", "source"),
    [
        ("regex", "a*", "regex", "a*"),
        ("choice", ["yes", "nö"], "choice", '["yes", "nö"]'),
        ("grammar", 'start: "a"', "lark", 'start: "a"'),
    ],
)
def test_vllms_names_arrive_in_both_spellings(name, value, form, source):
    for fields in ({f"guided_{name}": value}, {"structured_outputs": {name: value}}):
        found = constraint(CompletionRequest, **fields)
        assert (found.form, found.source) == (form, source)


@pytest.mark.parametrize("fields", [{}, {"response_format": {"type": "text"}}, {"structured_outputs": {}}, {"response_format": None}])
def test_what_constrains_nothing_is_no_constraint(fields):
    assert constraint(ChatRequest, **fields) is None


@pytest.mark.parametrize(
    ("fields", "failure", "param"),
    [
        ({"response_format": "json"}, InvalidValue, "response_format"),
        ({"response_format": {}}, MissingField, "response_format.type"),
        ({"response_format": {"type": "grammar", "grammar": "x"}}, InvalidValue, "response_format.type"),
        ({"response_format": {"type": "lark_grammar"}}, InvalidValue, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, InvalidValue, "response_format"),
        ({"response_format": {"type": "json_schema", "schema": SCHEMA}}, InvalidValue, "response_format"),
        ({"response_format": as_format(SCHEMA, name="no spaces")}, InvalidValue, "response_format.json_schema.name"),
        ({"response_format": as_format(SCHEMA, strict="yes")}, InvalidValue, "response_format.json_schema.strict"),
        ({"response_format": as_format(True)}, InvalidValue, "response_format.json_schema.schema"),
        ({"response_format": as_format([SCHEMA])}, InvalidValue, "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, MissingField, "response_format.json_schema.name"),
        ({"guided_json": 5}, InvalidValue, "guided_json"),
        ({"guided_json": "{"}, InvalidValue, "guided_json"),
        ({"guided_json": "[]"}, InvalidValue, "guided_json"),
        ({"guided_json": '{"a":' * 10_000}, InvalidValue, "guided_json"),
        ({"guided_json": '{"a":' * 100_000}, InvalidSchema, "guided_json"),
        ({"guided_regex": ""}, InvalidValue, "guided_regex"),
        ({"guided_regex": ["a"]}, InvalidValue, "guided_regex"),
        ({"guided_choice": []}, InvalidValue, "guided_choice"),
        ({"guided_choice": "yes"}, InvalidValue, "guided_choice"),
        ({"guided_choice": ["yes", ""]}, InvalidValue, "guided_choice[1]"),
        ({"guided_choice": ["yes", 1]}, InvalidValue, "guided_choice[1]"),
        ({"guided_choice": ["yes"] * 1025}, InvalidValue, "guided_choice"),
        ({"guided_grammar": ""}, InvalidValue, "guided_grammar"),
        ({"structured_outputs": {"json": "{"}}, InvalidValue, "structured_outputs"),
        ({"structured_outputs": {"structural_tag": "{}"}}, InvalidValue, "structured_outputs.structural_tag"),
        ({"structured_outputs": {"whitespace_pattern": " ?"}}, InvalidValue, "structured_outputs.whitespace_pattern"),
        ({"structured_outputs": {"disable_any_whitespace": True}}, InvalidValue, "structured_outputs.disable_any_whitespace"),
        ({"grammar": "root ::= 'a'"}, UnsupportedField, "grammar"),
        ({"json_schema": SCHEMA}, UnsupportedField, "json_schema"),
    ],
)
def test_what_is_wrong_is_refused_by_name(fields, failure, param):
    with pytest.raises(ServiceError) as caught:
        constraint(ChatRequest, **fields)
    assert type(caught.value) is failure
    assert caught.value.param == param
    assert param in caught.value.message


def test_llama_servers_names_are_refused_with_a_pointer_to_ours():
    with pytest.raises(UnsupportedField, match="Use guided_grammar, which takes Lark"):
        constraint(ChatRequest, grammar="root ::= 'a'")
    with pytest.raises(UnsupportedField, match="Use response_format"):
        constraint(ChatRequest, json_schema=SCHEMA)


@pytest.mark.parametrize(
    ("fields", "first", "second"),
    [
        ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "response_format", "guided_regex"),
        ({"guided_choice": ["a"], "guided_json": SCHEMA}, "guided_json", "guided_choice"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs.regex", "structured_outputs.choice"),
        ({"guided_grammar": 'start: "a"', "structured_outputs": {"json_object": True}}, "guided_grammar", "structured_outputs.json_object"),
    ],
)
def test_two_constraints_are_refused_by_the_second(fields, first, second):
    with pytest.raises(InvalidValue, match=f"^{second} cannot be combined with {first}") as caught:
        constraint(ChatRequest, **fields)
    assert caught.value.param == second
