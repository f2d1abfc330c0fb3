"""What an answer has to be: OpenAI's response_format, vLLM's guided_* and structured_outputs."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from src.api.schema.fields import AsObject, AsString, ByKind, Strict
from src.api.schema.limits import AtMost, limits_of
from src.api.schema.nesting import has_more_values
from src.errors import FIELD, InvalidSchema, InvalidValue
from src.protocol import Constraint


def _check_size(schema: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    """Before it is written as text, again and again; whoever compiles it counts its bytes."""
    most = limits_of(info).max_grammar_bytes
    if has_more_values(schema, most):
        raise PydanticCustomError(str(InvalidSchema.code), "{reason}", {"reason": f"is too large: MAX_GRAMMAR_BYTES allows {most} bytes"})
    return schema


Schema = Annotated[dict[str, Any], AfterValidator(_check_size)]
# Read and written several times, before whoever compiles it counts its bytes.
NotEmpty = Annotated[str, StringConstraints(min_length=1), AtMost("max_grammar_bytes", InvalidSchema)]
SchemaOrJSON = Annotated[Annotated[Schema, AsObject] | Annotated[NotEmpty, AsString], ByKind]
FORMAT_NAME = r"^[a-zA-Z0-9_-]{1,64}$"
Choices = Annotated[list[NotEmpty], Field(min_length=1), AtMost("max_grammar_choices")]


def _not_a_number(value: Any) -> Any:
    """0 is equal to False, but not the same."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError("must be false")
    return value


Off = Annotated[Literal[False], BeforeValidator(_not_a_number)]


class NamedSchema(Strict):
    """`strict` makes no difference: a schema is enforced in any case."""

    name: Annotated[str, StringConstraints(pattern=FORMAT_NAME)]
    description: str | None = None
    strict: bool | None = None
    schema_: Schema | None = Field(None, alias="schema")


class ResponseFormat(Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None
    schema_: Schema | None = Field(None, alias="schema")  # with json_object, as llama-server takes it

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> "ResponseFormat":
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("needs json_schema for the type json_schema")
        if self.schema_ is not None and self.type != "json_object":
            raise ValueError("has a schema, which belongs in json_schema unless the type is json_object")
        return self


class StructuredOutputs(Strict):
    json_: SchemaOrJSON | None = Field(None, alias="json")
    regex: NotEmpty | None = None
    choice: Choices | None = None
    grammar: NotEmpty | None = None
    json_object: bool | None = None
    structural_tag: None = None
    whitespace_pattern: None = None
    disable_any_whitespace: Off | None = None
    disable_additional_properties: Off | None = None


class ConstraintFields(Strict):
    """The fields that constrain an answer. A request can have one of them."""

    response_format: ResponseFormat | None = None
    guided_json: SchemaOrJSON | None = None
    guided_regex: NotEmpty | None = None
    guided_choice: Choices | None = None
    guided_grammar: NotEmpty | None = None
    structured_outputs: StructuredOutputs | None = None

    @field_validator("guided_json", "structured_outputs")
    @classmethod
    def _is_a_schema(cls, value: Any) -> Any:
        schema = value.json_ if isinstance(value, StructuredOutputs) else value
        if isinstance(schema, str):
            _parsed(schema)
        return value

    @model_validator(mode="after")
    def _is_one(self) -> "ConstraintFields":
        params = [constraint.param for constraint in self._constraints()]
        if len(params) > 1:
            raise InvalidValue(f"{FIELD} cannot be combined with {params[0]}: an answer can follow only one of them.", params[1])
        return self

    def constraint(self) -> Constraint | None:
        return next(self._constraints(), None)

    def _constraints(self) -> Iterator[Constraint]:
        if (format := self.response_format) and format.type != "text":
            schema = format.json_schema.schema_ if format.json_schema else format.schema_
            yield of_schema(schema, "response_format")
        yield from _given(self.guided_json, self.guided_regex, self.guided_choice, self.guided_grammar, "guided_")
        if outputs := self.structured_outputs:
            yield from _given(outputs.json_, outputs.regex, outputs.choice, outputs.grammar, "structured_outputs.")
            if outputs.json_object:
                yield of_schema(None, "structured_outputs.json_object")


def _given(
    schema: Schema | str | None, regex: str | None, choice: list[str] | None, grammar: str | None, prefix: str
) -> Iterator[Constraint]:
    if schema is not None:
        yield of_schema(schema, f"{prefix}json")
    if regex is not None:
        yield Constraint(form="regex", source=regex, param=f"{prefix}regex")
    if choice is not None:
        yield Constraint(form="choice", source=json.dumps(choice, ensure_ascii=False), param=f"{prefix}choice")
    if grammar is not None:
        yield Constraint(form="lark", source=grammar, param=f"{prefix}grammar")


def of_schema(schema: Schema | str | None, param: str) -> Constraint:
    """None: any object."""
    parsed = _parsed(schema) if isinstance(schema, str) else {"type": "object"} if schema is None else schema
    return Constraint(form="json_schema", source=json.dumps(parsed, ensure_ascii=False), param=param)


def _parsed(schema: str) -> Schema:
    """Raises ValueError."""
    try:
        parsed = json.loads(schema)
    except (ValueError, RecursionError):
        raise ValueError("must be a JSON schema; this is not valid JSON") from None
    if not isinstance(parsed, dict):
        raise ValueError("must be a JSON schema; this is not an object")
    return parsed
