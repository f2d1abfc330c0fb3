"""References in a function's schema lead where its author meant, in every tool format: also where arguments are written one by one."""

import json
import time

import pytest

from src.text.grammar import GrammarCompiler
from src.text.json_schema import Document
from src.text.tools import FORMATS
from src.text.tools.call import Call, Function
from src.text.tools.schema import types_of
from tests.text.tools.test_tool_grammar import VOCABULARIES, Held

NODE = {"type": "object", "properties": {"v": {"type": "integer"}}, "required": ["v"], "additionalProperties": False}
ROOT = {
    "type": "object",
    "properties": {"v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["v", "kids"],
    "additionalProperties": False,
}


def listing(reference: str, **more: object) -> dict:
    """A schema with a list of nodes, which are what the reference leads to."""
    kids = {"type": "array", "items": {"$ref": reference}}
    return {"type": "object", "properties": {"v": {"type": "integer"}, "kids": kids}, "required": ["v", "kids"], **more}


# Each takes {"v": 1, "kids": [{"v": 2}]} and no other kids.
SCHEMAS = {
    "$defs": listing("#/$defs/node", **{"$defs": {"node": NODE}}),
    "definitions": listing("#/definitions/node", definitions={"node": NODE}),
    "names of the author's": listing("#/components/schemas/node", components={"schemas": {"node": NODE}}),
    "$anchor": listing("#node", **{"$defs": {"node": {"$anchor": "node", **NODE}}}),
    "draft 7's anchor": listing("#node", definitions={"node": {"$id": "#node", **NODE}}),
    "$id of a part": listing("node.json", **{"$id": "https://example.com/list.json", "$defs": {"n": {"$id": "node.json", **NODE}}}),
    "an absolute URI": listing("https://example.com/n", **{"$defs": {"n": {"$id": "https://example.com/n", **NODE}}}),
    "a URN": listing("urn:x:node", **{"$id": "urn:x:list", "$defs": {"n": {"$id": "urn:x:node", **NODE}}}),
    "$id of the root": listing("list.json#/$defs/n", **{"$id": "https://example.com/list.json", "$defs": {"n": NODE}}),
    "escapes": listing("#/%24defs/a~1b~0c%20d", **{"$defs": {"a/b~c d": NODE}}),
    "an item of a list": listing("#/x/1", x=[False, NODE]),
    "from reference to reference": listing("#/$defs/a", **{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": NODE}}),
    "another argument": {
        "type": "object",
        "properties": {"v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/properties/first"}}, "first": NODE},
        "required": ["v", "kids"],
    },
    "its own definitions": {
        "type": "object",
        "properties": {
            "v": {"type": "integer"},
            "kids": {"type": "array", "items": {"$ref": "#/properties/kids/$defs/node"}, "$defs": {"node": NODE}},
        },
        "required": ["v", "kids"],
    },
    "a root that is a reference": {"$ref": "#/$defs/list", "$defs": {"list": listing("#/$defs/node"), "node": NODE}},
    "names that are keywords": listing(
        "#/$defs/properties", **{"$defs": {"properties": NODE}, "default": {"$ref": "#/nowhere"}, "$schema": "https://x"}
    ),
}


@pytest.fixture(scope="module")
def compiler():
    compiler = GrammarCompiler(VOCABULARIES["markers are words"])
    yield compiler
    compiler.close()


@pytest.fixture(params=FORMATS)
def held(request, compiler) -> Held:
    return Held(request.param, VOCABULARIES["markers are words"], compiler)


def allows(held: Held, schema: dict, *, content: str | None = None):
    source = held.source(functions=[Function("f", schema, strict=True)], forced=content is None, content=content)
    return lambda arguments: held.allows(source, held.text([Call("f", arguments)]))


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_strict_arguments_references_lead_where_they_are_meant_to(held, name):
    allowed = allows(held, SCHEMAS[name])
    assert allowed({"v": 1, "kids": [{"v": 2}]})
    assert not allowed({"v": 1, "kids": [[]]})
    assert not allowed({"v": 1, "kids": [{"v": "x"}]})


def test_an_argument_can_hold_all_of_the_schema_it_is_in(held):
    allowed = allows(held, ROOT)
    assert allowed({"v": 1, "kids": [{"v": 2, "kids": []}, {"v": 3, "kids": [{"v": 4, "kids": []}]}]})
    assert not allowed({"v": 1, "kids": [[]]})
    assert not allowed({"v": 1, "kids": [{"v": 2}]})


def test_beside_content_that_is_json_references_lead_there_too(held):
    allowed = allows(held, ROOT, content=held.json({"type": "object", "properties": {}, "additionalProperties": False}))
    assert allowed({"v": 1, "kids": [{"v": 2, "kids": []}]})
    assert not allowed({"v": 1, "kids": [[]]})


def test_a_string_behind_a_reference_keeps_its_length(held):
    allowed = allows(
        held,
        {
            "type": "object",
            "properties": {"s": {"$ref": "#/$defs/s"}},
            "required": ["s"],
            "$defs": {"s": {"maxLength": 3, "type": "string"}},
        },
    )
    assert allowed({"s": "abc"})
    assert not allowed({"s": "abcd"})


def test_types_are_found_behind_references_and_recursion_costs_nothing():
    branches = [{"$ref": "#/properties/x"}] * 16
    document = Document(
        {"properties": {"x": {"anyOf": [*branches, {"type": "null"}]}, "y": {"$ref": "#/properties/y"}, "z": {"$ref": "#/no"}}}
    )
    began = time.thread_time()
    assert types_of(document.root["properties"]["x"], document) == {"null"}
    assert types_of(document.root["properties"]["y"], document) == types_of(document.root["properties"]["z"], document) == set()
    assert time.thread_time() - began < 1


def test_a_reference_to_what_is_no_object_of_keywords_does_no_harm(held):
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/any"}, "b": True}, "required": ["a", "b"], "$defs": {"any": True}}
    assert allows(held, schema)({"a": "x", "b": "y"})
    assert Function("f", {"$ref": "#/$defs/any", "$defs": {"any": True}}).properties == {}


def test_what_is_taken_out_of_a_document_holds_only_what_it_needs():
    document = Document(listing("#/$defs/node", **{"$defs": {"node": NODE, "other": {"description": "x" * 10_000}}}))
    taken = document.extracted(document.root["properties"]["kids"])
    assert taken == {"type": "array", "items": {"$ref": "#/$defs/part0"}, "$defs": {"part0": NODE}}
    assert "x" * 100 not in json.dumps(document.extracted(document.root))


def test_data_that_looks_like_a_reference_is_data():
    schema = {"type": "object", "properties": {"const": {"const": {"$ref": "#", "$id": "x"}}, "$ref": {"enum": [{"$ref": "#"}]}}}
    assert Document(schema).extracted(schema) == schema
