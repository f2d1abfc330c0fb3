"""Tools that the model may call, and whether it has to: what the APIs have in common, and OpenAI's form of a tool."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import AfterValidator, Discriminator, StringConstraints, Tag, ValidationInfo
from pydantic.json_schema import SkipJsonSchema

from src.api.schema.conversation import Tool
from src.api.schema.fields import LeftOut, Strict, type_of
from src.api.schema.limits import AtMost, limits_of
from src.api.schema.nesting import has_more_values, is_deeper

FunctionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
Description = Annotated[str, AtMost("max_tool_description")]


def _check_parameters(parameters: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    limits = limits_of(info)
    many = has_more_values(parameters, limits.max_grammar_bytes)
    if not many and is_deeper(parameters, limits.max_grammar_depth):
        raise ValueError(f"is nested too deeply: MAX_GRAMMAR_DEPTH allows {limits.max_grammar_depth} levels")
    if many or len(json.dumps(parameters, ensure_ascii=False).encode(errors="replace")) > limits.max_grammar_bytes:
        raise ValueError(f"is too large: MAX_GRAMMAR_BYTES allows {limits.max_grammar_bytes} bytes")
    kind = parameters.get("type")
    if isinstance(kind, list) and "object" in kind:
        return {**parameters, "type": "object"}  # arguments are never null
    if kind not in (None, "object"):
        raise ValueError('must have the type "object"')
    return parameters


CUSTOM_PARAMETERS = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"], "additionalProperties": False}
Parameters = Annotated[dict[str, Any], AfterValidator(_check_parameters)]


class ToolForm(Protocol):
    """An API's form of a tool, or of several."""

    def tools(self) -> Sequence[Tool]: ...


class LeftOutTool(LeftOut):
    """One that the API's owner runs, or that its models were trained to use: it is not shown to the model."""

    def tools(self) -> Sequence[Tool]:
        return ()


AnyTool = TypeVar("AnyTool", bound=ToolForm)


def all_tools(forms: Iterable[ToolForm] | None) -> Iterator[Tool]:
    for form in forms or []:
        yield from form.tools()


def _check_names(forms: list[AnyTool], info: ValidationInfo) -> list[AnyTool]:
    names: set[str] = set()
    for tool in all_tools(forms):
        if tool.name in names:
            raise ValueError(f"has two functions named {tool.name}")
        names.add(tool.name)
    if len(names) > (most := limits_of(info).max_tools):
        raise ValueError(f"has too many functions: MAX_TOOLS allows {most}")
    return forms


Tools = Annotated[list[AnyTool], AtMost("max_tools"), AfterValidator(_check_names)]


def check_choice(tools: Iterable[Tool], *, must_call: bool, name: str | None = None) -> None:
    """Whether a tool can be called. `name`: of the one that has to be. Raises ValueError."""
    names = [tool.name for tool in tools]
    if must_call and not names:
        raise ValueError("requires tools")
    if name is not None and name not in names:
        raise ValueError(f"names the function {name}, which is not in tools")


class FunctionDefinition(Strict):
    name: FunctionName
    description: Description | None = None
    parameters: Parameters | None = None
    strict: bool | None = None


class ChatTool(Strict):
    type: Literal["function"]
    function: FunctionDefinition

    def tools(self) -> Sequence[Tool]:
        function = self.function
        return (Tool(function.name, function.description, function.parameters, bool(function.strict)),)


class CustomDefinition(Strict):
    name: FunctionName
    description: Description | None = None


class ChatCustomTool(Strict):
    """Takes text in place of JSON. What its `format` asks of the text is not enforced."""

    type: Literal["custom"]
    custom: CustomDefinition

    def tools(self) -> Sequence[Tool]:
        return (Tool(self.custom.name, self.custom.description, CUSTOM_PARAMETERS, custom=True),)


def _tag(tool: Any) -> str:
    kind = type_of(tool)
    return "as function" if kind is None else f"as {kind}" if kind in ("function", "custom") else "as left out"


AnyChatTool = Annotated[
    Annotated[ChatTool, Tag("as function")]
    | Annotated[ChatCustomTool, Tag("as custom")]
    | Annotated[SkipJsonSchema[LeftOutTool], Tag("as left out")],
    Discriminator(_tag),
]


class ChosenFunction(Strict):
    name: FunctionName
