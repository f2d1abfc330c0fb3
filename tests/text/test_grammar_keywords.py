"""Keywords of a schema that ask nothing are no reason to refuse it, and what cannot be enforced costs a tool only that."""

import json

import pytest

from src.errors import InvalidSchema
from src.text.grammar import GrammarCompiler, Limits, loosened, source_of
from src.text.grammar.keywords import FORMATS, asking
from src.text.tools import FORMATS as TOOL_FORMATS
from src.text.tools.call import Call, Function
from tests.text.tools.test_tool_grammar import VOCABULARIES, Held

NOTE = {"description": "d", "title": "t"}
NOTHING = [
    *({"propertyNames": one} for one in (True, {}, {"type": "string"}, {"type": ["string", "null"]}, {"type": "string", **NOTE}, NOTE)),
    *({"propertyNames": one} for one in ({"minLength": 0}, {"type": "string", "pattern": ".*"}, {"pattern": ""})),
    *({"if": True, "else": {"const": 1}}, {"if": NOTE, "else": False}, {"if": False, "then": {"const": 1}}),
    {"uniqueItems": False},
    *({keyword: one} for keyword in ("unevaluatedProperties", "unevaluatedItems") for one in (True, {}, NOTE)),
    *({"minContains": 0}, {"maxContains": 3}, {"contains": {"type": "string"}, "minContains": 0}),
    *({"dependentRequired": one} for one in ({}, {"a": []})),
    *({"dependentSchemas": one} for one in ({}, {"a": True, "b": {}})),
    *({"dependencies": one} for one in ({}, {"a": []}, {"a": {}})),
    *({"if": {"type": "string"}}, {"then": {"minLength": 3}}, {"else": {"const": 1}}, {"if": {"const": 1}, "then": True, "else": {}}),
    {"not": False},
    *({"$dynamicAnchor": "a"}, {"$recursiveAnchor": True}),
    *({"format": one} for one in ("path", "binary", "password", "uri-reference", "iri", "regex", "uint32", "")),
    *({keyword: None} for keyword in ("enum", "required", "properties", "items", "additionalProperties", "anyOf", "$ref", "title")),
    *({keyword: None} for keyword in ("minimum", "multipleOf", "maxLength", "pattern", "format", "uniqueItems", "not", "default")),
]
SOMETHING = [
    *({"propertyNames": one} for one in (False, {"type": "integer"}, {"pattern": "^a"}, {"enum": ["a"]})),
    *({"propertyNames": {"minLength": 1}}, {"if": True, "then": {"minLength": 3}}, {"if": False, "else": {"minLength": 3}}),
    {"uniqueItems": True},
    *({"unevaluatedProperties": one} for one in (False, {"type": "string"})),
    *(
        {"contains": {"const": 1}},
        {"contains": {"const": 1}, "minContains": 1},
        {"contains": {"const": 1}, "minContains": 0, "maxContains": 2},
    ),
    *({"dependentRequired": {"a": ["b"]}}, {"dependentSchemas": {"a": {"minProperties": 1}}}, {"dependencies": {"a": ["b"]}}),
    *({"if": {"const": 1}, "then": {"type": "string"}}, {"if": {"const": 1}, "else": False}),
    *({"not": {}}, {"not": {"type": "string"}}, {"$dynamicRef": "#a"}),
]
SOMETHING_WITH_OTHERS = [
    *({"uniqueItems": True, "maxItems": 2}, {"uniqueItems": True, "type": ["array", "null"]}),
    *({"dependentRequired": {"a": ["b"]}, "required": ["a"]}, {"propertyNames": {"maxLength": 3}, "type": "object"}),
]
NAMED_LIKE_KEYWORDS = {"properties": {name: {"type": "integer"} for name in ("if", "then", "not", "format", "uniqueItems", "contains")}}


@pytest.fixture(scope="module")
def compiler():
    compiler = GrammarCompiler(VOCABULARIES["markers are words"])
    yield compiler
    compiler.close()


def compile_schema(compiler: GrammarCompiler, schema: dict) -> None:
    compiler.compile(source_of("json_schema", json.dumps(schema), Limits()))


@pytest.mark.parametrize("keywords", NOTHING, ids=str)
def test_a_keyword_that_asks_nothing_is_taken_wherever_it_stands(compiler, keywords):
    inner = {"type": ["object", "array", "string"], **keywords}
    compile_schema(compiler, inner)
    compile_schema(compiler, {"type": "object", "properties": {"a": {"type": "array", "items": {"anyOf": [inner, {"type": "null"}]}}}})
    compile_schema(compiler, {"$ref": "#/$defs/a", "$defs": {"a": inner}})
    assert asking(inner) == {"type": ["object", "array", "string"]}


@pytest.mark.parametrize("keywords", SOMETHING + SOMETHING_WITH_OTHERS, ids=str)
def test_a_keyword_that_asks_something_is_not_forgotten(compiler, keywords):
    assert asking(keywords) == keywords
    with pytest.raises(InvalidSchema):
        compile_schema(compiler, keywords)


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ({"type": "array", "maxItems": 1, "uniqueItems": True}, {"type": "array", "maxItems": 1}),
        ({"required": ["a", "b"], "dependentRequired": {"c": ["a"], "a": ["b"]}}, {"required": ["a", "b"]}),
        ({"type": "string", "uniqueItems": True, "propertyNames": {"maxLength": 1}}, {"type": "string"}),
        ({"type": ["object", "null"], "contains": {"const": 1}, "minContains": 2}, {"type": ["object", "null"]}),
        ({"type": "array", "dependentSchemas": {"a": False}, "unevaluatedProperties": False}, {"type": "array"}),
    ],
)
def test_what_cannot_matter_beside_another_keyword_is_dropped(compiler, asked, left):
    assert asking(asked) == left
    compile_schema(compiler, asked)


@pytest.mark.parametrize(
    "dialect",
    [
        *("https://json-schema.org/draft-07/schema#", "http://json-schema.org/schema#", "https://json-schema.org/draft/next/schema"),
        *("https://spec.openapis.org/oas/3.1/dialect/base", "https://example.com/s", "urn:x", "x", ""),
    ],
)
def test_a_dialect_that_is_not_known_is_not_looked_for(compiler, dialect):
    assert asking({"$schema": dialect, "type": "string"}) == {"type": "string"}
    compile_schema(compiler, {"$schema": dialect, "type": "object", "properties": {"a": {"$schema": dialect, "type": "integer"}}})


@pytest.mark.parametrize("draft", ["http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"])
def test_a_dialect_that_is_known_is_left_to_say_what_keywords_mean(compiler, draft):
    assert asking({"$schema": draft}) == {"$schema": draft}
    compile_schema(compiler, {"$schema": draft, "type": "object"})


def test_what_another_keyword_leaves_nothing_of_is_dropped():
    closed = {"type": "object", "additionalProperties": False}
    assert asking({**closed, "unevaluatedProperties": {"type": "string"}}) == closed
    assert asking({"items": {}, "unevaluatedItems": False}) == {"items": {}}
    assert "unevaluatedItems" in asking({"items": [{}], "unevaluatedItems": False})


def test_properties_and_data_that_are_named_like_keywords_stay(compiler):
    assert asking(NAMED_LIKE_KEYWORDS) == NAMED_LIKE_KEYWORDS
    assert loosened(NAMED_LIKE_KEYWORDS) == NAMED_LIKE_KEYWORDS
    data = {"enum": [{"uniqueItems": False}], "default": {"if": 1}}
    assert asking(data) == data
    assert asking({"format": "email"}) == {"format": "email"}


def test_a_property_named_like_data_is_checked_as_any_other(compiler):
    with pytest.raises(InvalidSchema, match="minProperties"):
        compile_schema(compiler, {"properties": {"default": {"type": "object", "minProperties": 9}}})


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_the_formats_that_are_enforced_are_those_the_library_knows(compiler, format):
    compile_schema(compiler, {"type": "string", "format": format})


def test_null_is_still_a_value_and_a_schema_that_is_null_is_any():
    assert asking({"const": None, "enum": [None]}) == {"const": None, "enum": [None]}
    assert asking({"properties": {"a": None}, "type": None}) == {"properties": {"a": {}}}


MEANINGLESS = [
    *({"type": one} for one in ("any", "dict", "Object", "", ["object", "map"], [], 1)),
    *({"required": one} for one in ("c", True, [1], {})),
    *({"enum": one} for one in ("a", {}, True)),
    *({"properties": one} for one in ([], ["c"], "c")),
    {"properties": {"c": "integer"}},
    *({"additionalProperties": one} for one in ("no", 0, [])),
    *({keyword: []} for keyword in ("anyOf", "oneOf")),
    *({"anyOf": one} for one in ({}, ["object"])),
    *({"minProperties": one} for one in ("1", -1, True)),
    *({"$ref": 1}, {"minimum": "0"}, {"items": "x"}, {"pattern": 1}, {"multipleOf": 0}),
]
HARD = [
    *SOMETHING[1:-4],
    *({"not": {"type": "null"}}, {"patternProperties": {"(?=a)": {}}}, {"minProperties": 9}),
    {"oneOf": [{"type": "object"}, {"type": ["array", "object"]}]},
    {"oneOf": [{}, {"type": "object"}], "anyOf": [{"type": "object"}]},
]


@pytest.mark.parametrize("name", TOOL_FORMATS)
@pytest.mark.parametrize("keywords", HARD, ids=str)
def test_of_a_tool_that_is_not_strict_only_the_keyword_is_dropped(compiler, name, keywords):
    held = Held(name, VOCABULARIES["markers are words"], compiler)
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": ["object", "array"], **keywords}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    source = held.source(functions=[Function("f", schema)], forced=True)
    assert held.allows(source, held.text([Call("f", {"a": 1, "b": {"c": 2}})]))
    for wrong in ({}, {"a": 1}, {"a": "x", "b": {}}, {"a": 1, "b": 2}):
        assert not held.allows(source, held.text([Call("f", wrong)])), wrong
    with pytest.raises(InvalidSchema):
        held.source(functions=[Function("f", schema, strict=True)], forced=True)


@pytest.mark.parametrize("keywords", MEANINGLESS, ids=str)
def test_of_a_tool_that_is_not_strict_a_keyword_that_means_nothing_is_dropped(compiler, keywords):
    held = Held("generic", VOCABULARIES["markers are words"], compiler)
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": keywords}, "required": ["a", "b"]}
    source = held.source(functions=[Function("f", schema)], forced=True)
    assert held.allows(source, held.text([Call("f", {"a": 1, "b": {"c": 2}})]))
    for wrong in ({}, {"a": 1}, {"a": "x", "b": {"c": 2}}, {"a": 1, "b": {"c": 2}, "d": 3}):
        assert not held.allows(source, held.text([Call("f", wrong)])), wrong
    with pytest.raises(InvalidSchema):
        held.source(functions=[Function("f", schema, strict=True)], forced=True)


def test_a_tool_may_require_what_it_does_not_declare(compiler):
    held = Held("generic", VOCABULARIES["markers are words"], compiler)
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a", "b"]}
    source = held.source(functions=[Function("f", schema)], forced=True)
    assert held.allows(source, held.text([Call("f", {"a": 1, "b": 2})]))
    assert not held.allows(source, held.text([Call("f", {"a": "x", "b": 2})]))
    assert not held.allows(source, held.text([Call("f", {"a": 1})]))
