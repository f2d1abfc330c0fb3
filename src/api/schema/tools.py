"""Tools of a chat request: what the model may call, and whether it has to. Knows no format of models."""

import json
from typing import Annotated, Any, Literal

from pydantic import StringConstraints, ValidationInfo, field_validator

from src.api.nesting import is_deeper
from src.api.schema.bounds import AtMost, limits_of
from src.api.schema.fields import Strict

FunctionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class FunctionDefinition(Strict):
    name: FunctionName
    description: Annotated[str, AtMost("max_tool_description")] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @field_validator("parameters")
    @classmethod
    def _is_the_schema_of_an_object(cls, parameters: dict[str, Any] | None, info: ValidationInfo) -> dict[str, Any] | None:
        if parameters is None:
            return None
        limits = limits_of(info)
        if is_deeper(parameters, limits.max_grammar_depth):
            raise ValueError(f"MAX_GRAMMAR_DEPTH allows {limits.max_grammar_depth} levels")
        if len(json.dumps(parameters, ensure_ascii=False).encode(errors="replace")) > limits.max_grammar_bytes:
            raise ValueError(f"MAX_GRAMMAR_BYTES allows {limits.max_grammar_bytes} bytes")
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


Tools = Annotated[list[Tool], AtMost("max_tools")]
