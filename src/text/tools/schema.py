"""What a function's JSON schema says about one argument, for formats that write arguments one by one. Validates nothing."""

from typing import Any

from src.text.json_schema import TYPES, Document, Schema, changed

NAMES: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    dict: "object",
    list: "array",
    type(None): "null",
}


def properties(parameters: Schema | None) -> dict[str, Schema]:
    """The arguments that are declared; {} where the schema does not simply list them."""
    found = (parameters or {}).get("properties")
    if not isinstance(found, dict):
        return {}
    return {name: one if isinstance(one, dict) else {} for name, one in found.items() if one is not False}


def required(parameters: Schema | None) -> set[str]:
    found = (parameters or {}).get("required")
    return {name for name in found if isinstance(name, str)} if isinstance(found, list) else set()


def closed(parameters: Schema | None) -> Schema:
    """The schema without arguments that it does not name: a model is not to invent any."""
    schema = dict(parameters or {"type": "object", "properties": {}})
    schema["type"] = schema.get("type") or "object"
    open_ends = ("additionalProperties", "unevaluatedProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref", "if")
    is_open = any(schema.get(key) is not None for key in open_ends) or required(schema) - properties(schema).keys()
    if "properties" in schema and not is_open:
        schema["additionalProperties"] = False
    return schema


def moved(schema: Any, to: str) -> Any:
    """An extracted schema as it has to be at another place of a larger one: its references go along."""
    if not isinstance(schema, dict):
        return schema
    here = changed(schema, lambda inner: moved(inner, to))
    reference = schema.get("$ref")
    return {**here, "$ref": to + reference[1:]} if isinstance(reference, str) and reference.startswith("#") else here


def types_of(schema: Any, document: Document) -> set[str]:
    """The JSON types that an argument may have; empty where the schema does not say."""
    return _types(schema, document, set()) or set()


def _types(schema: Any, document: Document, seen: set[int]) -> set[str] | None:
    """None: any. `seen`: schemas whose types are known already, which recursive ones meet again."""
    schema = document.resolved(schema)
    if id(schema) in seen:
        return set()
    seen.add(id(schema))
    stated = schema.get("type") if isinstance(schema, dict) else None
    if isinstance(stated, (str, list)):
        named = {stated} if isinstance(stated, str) else {one for one in stated if isinstance(one, str)}
        return named if named <= TYPES else None  # "any", "int", "dict": others than JSON Schema's say nothing
    if not isinstance(schema, dict):
        return None
    values = schema["enum"] if isinstance(schema.get("enum"), list) else [schema["const"]] if "const" in schema else []
    if values:
        return {NAMES[type(value)] for value in values}
    for key in ("anyOf", "oneOf"):
        if isinstance(branches := schema.get(key), list):
            found = [_types(branch, document, seen) for branch in branches]
            return None if None in found else set().union(*(types for types in found if types))
    return None
