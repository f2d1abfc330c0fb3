"""Tools of a chat request: what the model may call, and whether it has to. Knows no format of models."""

import json
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator

from src.api.schema.bounds import MAX_DESCRIPTION, MAX_PARAMETERS_BYTES, MAX_PARAMETERS_DEPTH, MAX_TOOLS
from src.api.schema.fields import Strict

FunctionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class FunctionDefinition(Strict):
    name: FunctionName
    description: Annotated[str, StringConstraints(max_length=MAX_DESCRIPTION)] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @field_validator("parameters")
    @classmethod
    def _is_the_schema_of_an_object(cls, parameters: dict[str, Any] | None) -> dict[str, Any] | None:
        if parameters is None:
            return None
        if _is_deeper(parameters, MAX_PARAMETERS_DEPTH):
            raise ValueError(f"a schema may be {MAX_PARAMETERS_DEPTH} levels deep")
        if len(json.dumps(parameters, ensure_ascii=False).encode(errors="replace")) > MAX_PARAMETERS_BYTES:
            raise ValueError(f"a schema may have {MAX_PARAMETERS_BYTES} bytes")
        if parameters.get("type", "object") != "object":
            raise ValueError('the arguments are an object, so its type is "object"')
        return parameters


class Tool(Strict):
    type: Literal["function"]
    function: FunctionDefinition

    def as_dict(self) -> dict[str, Any]:
        """As chat templates take it: with a description and a schema, even if they say nothing."""
        function = self.function
        parameters = function.parameters or {"type": "object", "properties": {}}
        strict = {"strict": True} if function.strict else {}
        return {
            "type": "function",
            "function": {"name": function.name, "description": function.description or "", "parameters": parameters, **strict},
        }


class ChosenFunction(Strict):
    name: FunctionName


class NamedChoice(Strict):
    type: Literal["function"] = "function"
    function: ChosenFunction


Tools = Annotated[list[Tool], Field(max_length=MAX_TOOLS)]


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested in each other more than so many times. Looks no further than it has to."""
    inner = [value]
    for _ in range(levels):
        inner = [child for one in inner for child in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())]
        if not inner:
            return False
    return any(isinstance(one, (dict, list)) for one in inner)
