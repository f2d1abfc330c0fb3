"""Which tools a chat completion may or has to call: OpenAI's tool_choice, and the forms that clients of other APIs write it in."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Tag
from pydantic.json_schema import SkipJsonSchema

from src.api.schema.conversation import Tool
from src.api.schema.fields import AsString, LeftOut, Strict, type_of
from src.api.schema.limits import AtMost
from src.api.schema.tools import ChosenFunction, check_choice

MODES = ("none", "auto", "required")


class NamedFunction(Strict):
    type: Literal["function"] = "function"
    function: ChosenFunction

    @property
    def name(self) -> str:
        return self.function.name


class NamedCustom(Strict):
    type: Literal["custom"]
    custom: ChosenFunction

    @property
    def name(self) -> str:
        return self.custom.name


def _by_type(choice: Any) -> str:
    kind = type_of(choice)
    return f"as {kind}" if kind in ("custom", "allowed_tools") else "as string" if isinstance(choice, str) else "as function"


def as_mode(choice: Any) -> Any:
    """`auto` for `{"type": "auto"}`, as Anthropic's API has it, and so with the other modes."""
    kind = type_of(choice) if isinstance(choice, dict) else None
    return kind if kind in MODES else choice


def _nested(choice: Any) -> Any:
    """With its content one level down, as this API has it: the Responses API has `{"type": "function", "name": …}`."""
    kind = type_of(choice) if isinstance(choice, dict) else None
    if kind in ("function", "custom", "allowed_tools") and kind not in choice:
        content = {key: value for key, value in choice.items() if key != "type"}
        return {"type": kind, kind: content} if content else choice
    return as_mode(choice)


Named = Annotated[
    Annotated[NamedFunction, Tag("as function")]
    | Annotated[NamedCustom, Tag("as custom")]
    | Annotated[SkipJsonSchema[LeftOut], Tag("as left out")],
    Discriminator(lambda choice: "as left out" if type_of(choice) not in (None, "function", "custom") else _by_type(choice)),
    BeforeValidator(_nested),
]


class Allowed(Strict):
    mode: Literal["auto", "required"]
    tools: Annotated[list[Named], AtMost("max_tools")]


class AllowedTools(Strict):
    type: Literal["allowed_tools"]
    allowed_tools: Allowed


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], AsString]
    | Annotated[NamedFunction, Tag("as function")]
    | Annotated[NamedCustom, Tag("as custom")]
    | Annotated[AllowedTools, Tag("as allowed_tools")],
    Discriminator(_by_type),
    BeforeValidator(_nested),
]


def check(choice: Any, tools: Sequence[Tool]) -> None:
    """Whether the tools can be called as `choice`, a ToolChoice, says. Raises ValueError."""
    if isinstance(choice, AllowedTools):
        check_choice(allowed(choice, tools), must_call=choice.allowed_tools.mode == "required")
    elif choice not in (None, "none", "auto"):
        check_choice(tools, must_call=True, name=None if isinstance(choice, str) else choice.name)


def allowed(choice: Any, tools: Sequence[Tool]) -> Sequence[Tool]:
    """Those of the tools that may be called."""
    if not isinstance(choice, AllowedTools):
        return tools
    names = {tool.name for tool in choice.allowed_tools.tools if not isinstance(tool, LeftOut)}
    return [tool for tool in tools if tool.name in names]


def of_chat(choice: Any) -> dict[str, Any]:
    """The fields of a Chat that `choice`, a ToolChoice, decides."""
    if isinstance(choice, AllowedTools):
        return {"tool_choice": choice.allowed_tools.mode}
    if choice is None or isinstance(choice, str):
        return {"tool_choice": choice or "auto"}
    return {"tool_choice": "required", "only_tool": choice.name}
