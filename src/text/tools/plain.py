"""Tools with schemas of the plainest kind, for chat templates that cannot write any other. Enforces nothing."""

from typing import Any

from src.text.json_schema import Document, Schema
from src.text.tools.call import Function
from src.text.tools.schema import types_of

TYPES = ("string", "number", "integer", "boolean", "array", "object")


def plain_tools(tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each argument with one type and its description."""
    return [{"type": "function", "function": _plain(tool["function"])} for tool in tools]


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    function = Function(given["name"], given.get("parameters"))
    arguments = {name: _argument(schema, function.document) for name, schema in function.properties.items()}
    parameters = {"type": "object", "properties": arguments, "required": [name for name in arguments if name in function.required]}
    return {"name": function.name, "description": str(given.get("description") or ""), "parameters": parameters}


def _argument(schema: Schema, document: Document) -> Schema:
    whole = document.whole(schema)
    kind = _type_of(schema, document)
    items = {"items": {"type": _type_of(whole.get("items"), document)}} if kind == "array" else {}
    return {"type": kind, "description": str(whole.get("description") or ""), **items}


def _type_of(schema: Any, document: Document) -> str:
    types = types_of(schema, document)
    return next((one for one in TYPES if one in types), "string")
