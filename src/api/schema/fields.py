"""JSON to a checked object, or an error that names the field. Knows no field by name."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, StringConstraints, Tag, ValidationError

from src.api.schema.bounds import DEFAULTS
from src.errors import InvalidValue, MissingField
from src.settings import Limits

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
LONGEST_NAME = 64  # of a field; longer ones are made up, and not repeated

ModelName = Annotated[str, StringConstraints(min_length=1)]

# Picks the one form of a field that can be a string or a list, so that an error tells what is wrong with that form.
ByShape = Discriminator(lambda value: "as list" if isinstance(value, list) else "as string")
AsString, AsList, AsObject = Tag("as string"), Tag("as list"), Tag("as object")
ByKind = Discriminator(lambda value: "as object" if isinstance(value, dict) else "as string")


class Strict(BaseModel):
    """No coercion: "1" is not a number and true is not 1. Fields that it does not have are kept for unknown_fields to name."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True, extra="allow")


def validate(kind: type[Strict], body: dict[str, Any], limits: Limits = DEFAULTS) -> Any:
    """The body as `kind`. Raises InvalidValue or MissingField; param names the field."""
    try:
        return kind.model_validate(body, context=limits)
    except ValidationError as error:
        raise _explain(error) from None


def _explain(error: ValidationError) -> InvalidValue | MissingField:
    """The first thing that is wrong, without echoing what was sent."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    param = _path(first["loc"])
    if first["type"] == "missing":
        return MissingField(f"{param} is required.", param=param)
    reason = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return InvalidValue(
        f"{param} is wrong: expected {reason}." if "should be" in first["msg"] else f"{param} is wrong: {reason}.", param=param
    )


def _path(loc: tuple[int | str, ...]) -> str:
    """("messages", 0, "content", "as string") to messages[0].content: the tags of forms are left out, and names that are no fields'."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and len(part) <= LONGEST_NAME:
            path += f".{part}" if path else part
    return path or "body"
