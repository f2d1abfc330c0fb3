"""What a function's JSON schema says about one argument, for formats that write arguments one by one. Validates nothing."""

from typing import Any

Schema = dict[str, Any]
MOST_HOPS = 16  # from reference to reference
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
    return {name: one for name, one in found.items() if isinstance(one, dict)} if isinstance(found, dict) else {}


def required(parameters: Schema | None) -> set[str]:
    found = (parameters or {}).get("required")
    return {name for name in found if isinstance(name, str)} if isinstance(found, list) else set()


def closed(parameters: Schema | None) -> Schema:
    """The schema without arguments that it does not name: a model is not to invent any."""
    schema = dict(parameters or {"type": "object", "properties": {}})
    schema.setdefault("type", "object")
    open_ends = ("additionalProperties", "unevaluatedProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref", "if")
    if "properties" in schema and not any(key in schema for key in open_ends):
        schema["additionalProperties"] = False
    return schema


def with_definitions(schema: Schema, root: Schema) -> Schema:
    """An argument's schema as one of its own: its references still lead somewhere."""
    return {**{key: root[key] for key in ("$defs", "definitions") if key in root}, **schema}


def moved(schema: Any, to: str) -> Any:
    """The schema as it has to be at another place of a larger one: its references go along."""
    if isinstance(schema, list):
        return [moved(one, to) for one in schema]
    if not isinstance(schema, dict):
        return schema
    here = {key: moved(value, to) for key, value in schema.items()}
    reference = schema.get("$ref")
    return {**here, "$ref": to + reference[1:]} if isinstance(reference, str) and reference.startswith("#") else here


def types_of(schema: Schema, root: Schema, hops: int = MOST_HOPS) -> set[str]:
    """The JSON types that an argument may have; empty where the schema does not say."""
    if not hops or not isinstance(schema, dict):
        return set()
    if isinstance(reference := schema.get("$ref"), str):
        return types_of(_resolved(reference, root), root, hops - 1)
    stated = schema.get("type")
    if isinstance(stated, str):
        return {stated}
    if isinstance(stated, list):
        return {one for one in stated if isinstance(one, str)}
    values = schema["enum"] if isinstance(schema.get("enum"), list) else [schema["const"]] if "const" in schema else []
    if values:
        return {NAMES[type(value)] for value in values}
    for key in ("anyOf", "oneOf"):
        if isinstance(branches := schema.get(key), list):
            found = [types_of(branch, root, hops - 1) for branch in branches[:MOST_HOPS]]
            return set().union(*found) if all(found) else set()
    return set()


def _resolved(reference: str, root: Schema) -> Schema:
    value: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}
