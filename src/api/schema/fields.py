"""JSON to a checked object, or an error with the path of the field that is wrong and a sentence on what is wrong with it."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Discriminator, StringConstraints, Tag, ValidationError, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from src.api.schema.limits import DEFAULTS
from src.api.schema.numbers import whole
from src.errors import (
    FIELD,
    ContextLengthExceeded,
    FieldPath,
    InvalidSchema,
    InvalidValue,
    MissingField,
    ServiceError,
    UnsupportedContent,
    UnsupportedField,
)
from src.settings import Limits

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
LONGEST_NAME = 64  # of a field; longer ones are made up, and not repeated

ModelName = Annotated[str, StringConstraints(min_length=1)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]

# Picks the one form of a field that can be a string or a list, so that an error tells what is wrong with that form.
ByShape = Discriminator(lambda value: "as list" if isinstance(value, list) else "as string")
AsString, AsList, AsObject = Tag("as string"), Tag("as list"), Tag("as object")
ByKind = Discriminator(lambda value: "as object" if isinstance(value, dict) else "as string")


class Strict(BaseModel):
    """No coercion: "1" is not a number and true is not 1, but 8.0 is 8. Fields that it does not have are kept for
    unknown_fields to report.

    `names`: fields of a Chat, by their paths, and what they are called in this body; those of the same name are left out.
    """

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True, extra="allow")
    names: ClassVar[Mapping[FieldPath, FieldPath]] = MappingProxyType({})

    def without_effect(self) -> Iterable[str]:
        """Names of fields whose values were hints that mean nothing here: unknown_fields reports them."""
        return ()

    @field_validator("*", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        return whole(value)


def type_of(part: Any) -> str | None:
    """Of a part, an item or a tool, for a discriminator: JSON, or parsed already. None where it is no string."""
    kind = part.get("type") if isinstance(part, dict) else getattr(part, "type", None)
    return kind if isinstance(kind, str) else None


class LeftOut(Strict):
    """A part of a request that has no effect here, and does not change what the rest means: unknown_fields reports it by its place."""

    type: str


def validate(kind: type[Strict], body: dict[str, Any], limits: Limits = DEFAULTS) -> Any:
    """The body as `kind`. Raises ServiceError with the field's path: InvalidValue, MissingField, or what unsupported() makes."""
    try:
        return kind.model_validate(body, context=limits)
    except ValidationError as error:
        raise _explained(error) from None


def unsupported(kind: type[UnsupportedContent | UnsupportedField], reason: str) -> PydanticCustomError:
    """For a validator to raise: `kind` at the path of what it validates. `reason`: what follows the field's name in the message."""
    return PydanticCustomError(str(kind.code), "{reason}", {"reason": reason})


def missing() -> PydanticCustomError:
    """For a validator to raise: MissingField, where a field is required by what stands in another one."""
    return PydanticCustomError("missing", "is required")


_KINDS: dict[str, type[ServiceError]] = {
    "missing": MissingField,
    **{str(kind.code): kind for kind in (ContextLengthExceeded, InvalidSchema, UnsupportedContent, UnsupportedField)},
}

# What follows the field's name in a message, by pydantic's type of error; in braces what its context holds.
_REASONS = {
    "missing": "is required",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "float_type": "must be a number",
    **dict.fromkeys(("int_type", "int_from_float"), "must be an integer"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must be an object"),
    "list_type": "must be an array",
    "none_required": "must be null",
    "literal_error": "must be {expected}",
    "less_than_equal": "must be at most {le}",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "string_pattern_mismatch": "must match {pattern}",
}


def _explained(error: ValidationError) -> ServiceError:
    """The first thing that is wrong, without echoing what was sent."""
    first = error.errors(include_url=False, include_input=False)[0]
    kind = _KINDS.get(first["type"], InvalidValue)
    return kind(f"{FIELD} {_reason(first)}.", _path(first["loc"]))


def _reason(error: ErrorDetails) -> str:
    context = {key: _written(value) for key, value in error.get("ctx", {}).items()}
    if context.get("min_length") == "1":
        return "must not be empty"
    if template := _REASONS.get(error["type"]):
        return template.format(**context)
    return error["msg"].removeprefix("Value error, ")


def _written(value: Any) -> str:
    """As JSON has it: 2 for 2.0, false for False."""
    return f"{value:g}" if isinstance(value, float) else {"True": "true", "False": "false"}.get(str(value), str(value))


def _path(loc: tuple[int | str, ...]) -> FieldPath:
    """("messages", 0, "content", "as string") to ("messages", 0, "content"): without tags of forms, and names that are no fields'."""
    path = tuple(part for part in loc if isinstance(part, int) or (part.isidentifier() and len(part) <= LONGEST_NAME))
    return path or ("body",)
