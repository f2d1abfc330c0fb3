"""Keywords of JSON Schema that llguidance refuses by their names or values, though they ask nothing or can be left out. Compiles
nothing.

Source: https://json-schema.org/draft/2020-12/json-schema-core and json-schema-validation.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from src.text.json_schema import BY_NAME, TYPES, Schema, changed

NOTES = frozenset({"title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "$comment"})
FORMATS = frozenset({"date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"})  # those enforced
DIALECTS = re.compile(r"http://json-schema\.org/draft-0[3-7]/|https://json-schema\.org/draft/(?:2019-09|2020-12)/")  # those known
UNSUPPORTED = frozenset(
    {
        *("propertyNames", "unevaluatedProperties", "dependentRequired", "dependentSchemas", "dependencies", "if", "then", "else"),
        *("uniqueItems", "unevaluatedItems", "contains", "minContains", "maxContains", "not", "$dynamicRef", "$recursiveRef"),
    }
)
OF_ARRAYS = ("uniqueItems", "unevaluatedItems", "contains", "minContains", "maxContains")
OF_OBJECTS = ("propertyNames", "unevaluatedProperties", "dependentRequired", "dependentSchemas", "dependencies")
EXPRESSIONS = frozenset({"pattern", "patternProperties", "minProperties", "multipleOf"})  # which may be more than llguidance can do


def _is_anything(schema: Any) -> bool:
    """Whether every value holds it."""
    return schema is True or (isinstance(schema, dict) and schema.keys() <= NOTES)


EVERY_STRING: Mapping[str, tuple[object, ...]] = {"minLength": (0,), "pattern": ("", "^", ".*")}  # with which every one is held


def _is_any_name(schema: Any) -> bool:
    """Whether every property's name holds it: names are strings."""
    if not isinstance(schema, dict):
        return schema is True
    types = schema.get("type", "string")
    is_string = "string" in types if isinstance(types, list) else types == "string"
    asks = schema.keys() - NOTES - {"type"}
    return is_string and all(schema[keyword] in EVERY_STRING.get(keyword, ()) for keyword in asks)


def _is_every(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda schemas: isinstance(schemas, dict) and all(holds(one) for one in schemas.values())


# What the value of a keyword is where it asks nothing, whatever stands beside it.
ASKS_NOTHING: Mapping[str, Callable[[Any], bool]] = {
    "uniqueItems": lambda value: value is False,
    "propertyNames": _is_any_name,
    "unevaluatedProperties": _is_anything,
    "unevaluatedItems": _is_anything,
    "dependentRequired": _is_every(lambda names: names == []),
    "dependentSchemas": _is_every(_is_anything),
    "dependencies": _is_every(lambda one: one == [] or _is_anything(one)),
    "then": _is_anything,
    "else": _is_anything,
    "not": lambda value: value is False,
    "$schema": lambda value: isinstance(value, str) and not DIALECTS.match(value),  # llguidance would look for the document
    "format": lambda value: isinstance(value, str) and value not in FORMATS,  # an annotation: validation, 7.2.1
    "$dynamicAnchor": lambda value: isinstance(value, str),  # what refers to it is refused
    "$recursiveAnchor": lambda value: isinstance(value, bool),
}


def asking(schema: Any) -> Any:
    """The schema without keywords that ask nothing. One that is null counts as not there: so programs write what is not set."""
    if schema is None:
        return {}
    if not isinstance(schema, dict):
        return schema
    stated = {keyword: value for keyword, value in schema.items() if value is not None or keyword == "const"}
    found = {keyword: value for keyword, value in changed(stated, asking).items() if not _asks_nothing(keyword, value)}
    if "contains" not in found:
        _drop(found, "minContains", "maxContains")
    elif found.get("minContains") == 0 and "maxContains" not in found:
        _drop(found, "minContains", "contains")
    if "additionalProperties" in found:  # which evaluates all that are left
        _drop(found, "unevaluatedProperties")
    if isinstance(found.get("items"), (dict, bool)):
        _drop(found, "unevaluatedItems")
    if _is_anything(found.get("if", False)):
        _drop(found, "else")
    if found.get("if") is False:
        _drop(found, "then")
    if "if" not in found or not ("then" in found or "else" in found):
        _drop(found, "if", "then", "else")
    if _is_at_most_one(found.get("maxItems")):
        _drop(found, "uniqueItems")
    if _are_required(found.get("dependentRequired"), found.get("required")):
        _drop(found, "dependentRequired")
    for kind, keywords in (("array", OF_ARRAYS), ("object", OF_OBJECTS)):
        if not _may_be(found.get("type"), kind):
            _drop(found, *keywords)
    return found


def _is_at_most_one(value: Any) -> bool:
    return _is_count(value) and value <= 1


def _may_be(types: Any, kind: str) -> bool:
    return kind in types if isinstance(types, list) else not isinstance(types, str) or types == kind


def _are_required(dependent: Any, required: Any) -> bool:
    """Whether what one property asks for is required in any case."""
    if not (isinstance(dependent, dict) and isinstance(required, list)):
        return False
    return all(isinstance(names, list) and all(name in required for name in names) for names in dependent.values())


def _asks_nothing(keyword: str, value: Any) -> bool:
    return keyword in ASKS_NOTHING and ASKS_NOTHING[keyword](value)


def _drop(schema: Schema, *keywords: str) -> None:
    for keyword in keywords:
        schema.pop(keyword, None)


def _is_schema(value: Any) -> bool:
    return isinstance(value, (dict, bool))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_some(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda values: isinstance(values, list) and bool(values) and all(map(holds, values))


def _is_type(value: Any) -> bool:
    return isinstance(value, str) and value in TYPES


# What the value of a keyword may be at all.
WELL_FORMED: Mapping[str, Callable[[Any], bool]] = {
    "type": lambda value: _is_type(value) or _are_some(_is_type)(value),
    "enum": lambda value: isinstance(value, list),
    "required": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    "items": lambda value: _is_schema(value) or _are_some(_is_schema)(value),
    "additionalProperties": _is_schema,
    **dict.fromkeys(("properties", "patternProperties"), lambda value: isinstance(value, dict)),
    **dict.fromkeys(("prefixItems", "allOf", "anyOf", "oneOf"), _are_some(_is_schema)),
    **dict.fromkeys(("minimum", "maximum"), _is_number),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum"), lambda value: isinstance(value, bool) or _is_number(value)),
    "multipleOf": lambda value: _is_number(value) and value > 0,
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _is_count),
    **dict.fromkeys(("pattern", "format", "$ref"), lambda value: isinstance(value, str)),
}


def _is_well_formed(keyword: str, value: Any) -> bool:
    return keyword not in WELL_FORMED or WELL_FORMED[keyword](value)


def loosened(schema: Any, without: frozenset[str] = UNSUPPORTED) -> Any:
    """The schema without these keywords, and without those whose value means nothing: it allows what it did, and more."""
    if not isinstance(schema, dict):
        return schema
    found = {
        keyword: value
        for keyword, value in changed(schema, lambda inner: loosened(inner, without)).items()
        if keyword not in without and _is_well_formed(keyword, value)
    }
    for keyword in BY_NAME & found.keys():
        if isinstance(found[keyword], dict):
            found[keyword] = {name: one if _is_schema(one) else {} for name, one in found[keyword].items()}
    if any(schema.get(keyword) and keyword not in found for keyword in ("properties", "patternProperties")):
        _drop(found, "additionalProperties")  # which would forbid them
    if isinstance(branches := found.pop("oneOf", None), list):
        found["allOf"] = [*found.get("allOf", []), {"anyOf": branches}]
    return found
