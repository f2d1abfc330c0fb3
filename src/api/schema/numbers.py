"""Numbers as clients write them: JSON has one kind of number, and some languages write 8.0 for 8."""

from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema


def whole(value: Any) -> Any:
    """An integer for a number without a fraction: to JSON Schema 8.0 is one."""
    return int(value) if type(value) is float and value.is_integer() else value


class OrNone:
    """Annotates an optional integer: a number that means the same as null."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._none, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [*handler(schema)["anyOf"], {"const": self._number}]}

    def _none(self, value: Any) -> Any:
        return None if type(value) is int and value == self._number else value
