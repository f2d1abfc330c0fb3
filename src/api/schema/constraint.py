"""What an answer has to be: OpenAI's response_format, vLLM's guided_* and structured_outputs. Knows no grammar, and compiles none."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from src.api.schema.bounds import AtMost
from src.api.schema.fields import Strict
from src.errors import InvalidValue
from src.protocol import Constraint

Schema = dict[str, Any]
NotEmpty = Annotated[str, StringConstraints(min_length=1)]
Choices = Annotated[list[NotEmpty], Field(min_length=1), AtMost("max_grammar_choices")]


class NamedSchema(Strict):
    """`strict` makes no difference: a schema is enforced in any case."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
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
            raise ValueError("json_schema is required with the type json_schema")
        if self.schema_ is not None and self.type != "json_object":
            raise ValueError("schema stands in json_schema")
        return self


class StructuredOutputs(Strict):
    json_: Schema | NotEmpty | None = Field(None, alias="json")
    regex: NotEmpty | None = None
    choice: Choices | None = None
    grammar: NotEmpty | None = None
    json_object: bool | None = None
    structural_tag: None = None
    whitespace_pattern: None = None
    disable_any_whitespace: Literal[False] | None = None
    disable_additional_properties: Literal[False] | None = None


class ConstraintFields(Strict):
    """The fields of a request for text that say so. One of them at a time."""

    response_format: ResponseFormat | None = None
    guided_json: Schema | NotEmpty | None = None
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
            raise InvalidValue(f"{params[1]} cannot go with {params[0]}: an answer follows one of them.", params[1])
        return self

    def constraint(self) -> Constraint | None:
        return next(self._constraints(), None)

    def _constraints(self) -> Iterator[Constraint]:
        if (wanted := self.response_format) and wanted.type != "text":
            schema = wanted.json_schema.schema_ if wanted.json_schema else wanted.schema_
            yield _of_schema(schema if schema is not None else {"type": "object"}, "response_format")
        yield from _given(self.guided_json, self.guided_regex, self.guided_choice, self.guided_grammar, "guided_")
        if some := self.structured_outputs:
            yield from _given(some.json_, some.regex, some.choice, some.grammar, "structured_outputs.")
            if some.json_object:
                yield _of_schema({"type": "object"}, "structured_outputs.json_object")


def _given(
    schema: Schema | str | None, regex: str | None, choice: list[str] | None, grammar: str | None, prefix: str
) -> Iterator[Constraint]:
    if schema is not None:
        yield _of_schema(schema, f"{prefix}json")
    if regex is not None:
        yield Constraint(form="regex", source=regex, param=f"{prefix}regex")
    if choice is not None:
        yield Constraint(form="choice", source=json.dumps(choice, ensure_ascii=False), param=f"{prefix}choice")
    if grammar is not None:
        yield Constraint(form="lark", source=grammar, param=f"{prefix}grammar")


def _of_schema(schema: Schema | str, param: str) -> Constraint:
    parsed = _parsed(schema) if isinstance(schema, str) else schema
    return Constraint(form="json_schema", source=json.dumps(parsed, ensure_ascii=False), param=param)


def _parsed(schema: str) -> Schema:
    """Raises ValueError."""
    try:
        parsed = json.loads(schema)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON schema: not JSON") from None
    if not isinstance(parsed, dict):
        raise ValueError("it is no JSON schema: not an object")
    return parsed
