"""POST /v1/responses: its body, and the chat that it asks for."""

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from src.api.schema.chat import Effort, TopLogprobs
from src.api.schema.constraint import FORMAT_NAME, Schema, of_schema
from src.api.schema.content import refuse_new_media, texts
from src.api.schema.conversation import Chat, Message, Tool
from src.api.schema.fields import AsObject, AsString, LeftOut, ModelName, Name, Strict, missing, type_of
from src.api.schema.generation import MostTokens, Temperature, cooled, too_hot
from src.api.schema.limits import DEFAULTS, AtMost, limits_of
from src.api.schema.response_items import Input, Item, MessageItem, items_of, messages_of, role_and_content
from src.api.schema.response_tools import ResponsesTools
from src.api.schema.text_request import Wishes, without_nulls
from src.api.schema.tool_choice import as_mode
from src.api.schema.tools import FunctionName, all_tools, check_choice
from src.errors import EACH, FIELD, FieldPath, UnsupportedField
from src.protocol import Constraint
from src.settings import Limits

LOGPROBS = "message.output_text.logprobs"
NAMES: Mapping[FieldPath, FieldPath] = MappingProxyType(
    {
        ("messages",): ("input",),
        ("max_tokens",): ("max_output_tokens",),
        ("tools", EACH, "function"): ("tools", EACH),
        ("response_format",): ("text", "format"),
        ("reasoning_effort",): ("reasoning", "effort"),
    }
)
NOT_WITH_THIS_VALUE = "is not supported with this value. Leave it out"


class NamedTool(Strict):
    type: Literal["function", "custom"]
    name: FunctionName


AllowedTool = Annotated[
    Annotated[NamedTool, AsObject] | Annotated[SkipJsonSchema[LeftOut], Tag("as left out")],
    Discriminator(lambda tool: "as object" if type_of(tool) in (None, "function", "custom") else "as left out"),
]


class AllowedTools(Strict):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[AllowedTool], AtMost("max_tools")]


def _choice_tag(choice: Any) -> str:
    if not isinstance(choice, dict):
        return "as string"
    return "as allowed tools" if choice.get("type") == "allowed_tools" else "as object"


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], AsString]
    | Annotated[NamedTool, AsObject]
    | Annotated[AllowedTools, Tag("as allowed tools")],
    Discriminator(_choice_tag),
    BeforeValidator(as_mode),
]


class TextFormat(Strict):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = Field(None, validate_default=True)
    description: str | None = None
    schema_: Schema | None = Field(None, alias="schema")
    strict: bool | None = None

    @field_validator("name")
    @classmethod
    def _is_a_schemas(cls, name: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("type") != "json_schema":
            return name
        if name is None:
            raise missing()
        if not re.fullmatch(FORMAT_NAME, name):
            raise ValueError(f"must match {FORMAT_NAME}")
        return name


class TextConfig(Strict):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None

    def without_effect(self) -> Iterable[str]:
        return ["verbosity"] if self.verbosity in ("low", "high") else []


class ReasoningConfig(Strict):
    """Summaries are not made: the reasoning itself is in the answer."""

    effort: Effort | None = None
    summary: str | None = None
    generate_summary: str | None = None


class ResponsesStreamOptions(Strict):
    include_obfuscation: bool | None = None


class ResponsesRequest(Strict):
    names: ClassVar[Mapping[FieldPath, FieldPath]] = NAMES

    model: ModelName | None = None
    input: Input
    instructions: str | None = None
    previous_response_id: Name | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: ResponsesStreamOptions | None = None
    max_output_tokens: MostTokens = None
    max_tool_calls: int | None = Field(None, ge=1)  # of tools that a server has itself
    temperature: Temperature | None = None
    top_p: float | None = Field(None, ge=0, le=1)
    top_logprobs: TopLogprobs | None = None
    tools: ResponsesTools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    include: Annotated[list[str], AtMost(64)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    background: bool | None = None
    metadata: Annotated[dict[str, str], AtMost(16)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _can_be_done_here(cls, body: dict[str, Any]) -> dict[str, Any]:
        for name, neutral in (("background", False), ("conversation", None), ("prompt", None)):
            if body.get(name) not in (None, neutral):
                raise UnsupportedField(f"{FIELD} {NOT_WITH_THIS_VALUE}.", name)
        return body

    @model_validator(mode="after")
    def _asks_with_text(self, info: ValidationInfo) -> "ResponsesRequest":
        refuse_new_media("input", [role_and_content(item) for item in self.items()], limits_of(info))
        return self

    @field_validator("tool_choice")
    @classmethod
    def _can_be_called(cls, choice: Any, info: ValidationInfo) -> Any:
        """Without tools it has no effect."""
        if tools := list(all_tools(info.data.get("tools"))):
            if isinstance(choice, AllowedTools):
                check_choice(_allowed(tools, choice), must_call=choice.mode == "required")
            else:
                check_choice(tools, must_call=False, name=choice.name if isinstance(choice, NamedTool) else None)
        return choice

    def without_effect(self) -> Iterable[str]:
        return [*(["truncation"] if self.truncation == "auto" else []), *too_hot(self.temperature)]

    def items(self) -> list[Item]:
        return [MessageItem(role="user", content=self.input)] if isinstance(self.input, str) else self.input or []

    def chat(self, limits: Limits = DEFAULTS, history: Iterable[dict[str, Any]] = (), items: Iterable[Item] | None = None) -> Chat:
        """`history`: items of the responses before this one, as JSON. `items`: its own, with what references stand for. Raises
        InvalidValue: see Chat.checked()."""
        items = [*items_of(list(history), limits), *(self.items() if items is None else items)]
        return Chat(
            model=self.model,
            stream=bool(self.stream),
            wishes=self._wishes(),
            messages=(*self._instructions(), *messages_of(items)),
            **self._tool_fields(),
            reasoning_effort=self.reasoning.effort if self.reasoning else None,
        ).checked(limits)

    def _instructions(self) -> Iterator[Message]:
        if self.instructions:
            yield Message("system", texts(self.instructions))

    def _tool_fields(self) -> dict[str, Any]:
        """Those of the Chat."""
        tools, choice = list(all_tools(self.tools)), self.tool_choice
        if not tools:
            return {}
        if isinstance(choice, AllowedTools):
            tools = _allowed(tools, choice)
        mode = "required" if isinstance(choice, NamedTool) else choice.mode if isinstance(choice, AllowedTools) else choice or "auto"
        return {
            "tools": tuple(tools),
            "tool_choice": mode,
            "only_tool": choice.name if isinstance(choice, NamedTool) else None,
            "parallel_calls": self.parallel_tool_calls is not False,
        }

    def _wishes(self) -> Wishes:
        wants_logprobs = bool(self.top_logprobs) or LOGPROBS in (self.include or [])
        logprobs = self.top_logprobs or 0 if wants_logprobs else None
        return Wishes(
            sampling=without_nulls(temperature=cooled(self.temperature), top_p=self.top_p, logprobs=logprobs),
            max_tokens=self.max_output_tokens,
            constraint=self._constraint(),
        )

    def _constraint(self) -> Constraint | None:
        format = self.text.format if self.text else None
        if format is None or format.type == "text":
            return None
        return of_schema(format.schema_ if format.type == "json_schema" else None, "response_format")


class InputTokensRequest(ResponsesRequest):
    """What shapes the prompt; the rest has no effect."""

    input: Input | None = None  # type: ignore[assignment] # there may be a response before it
    personality: str | None = None

    def without_effect(self) -> Iterable[str]:
        return [*super().without_effect(), *(["personality"] if self.personality else [])]


def _allowed(tools: list[Tool], choice: AllowedTools) -> list[Tool]:
    names = {tool.name for tool in choice.tools if isinstance(tool, NamedTool)}
    return [tool for tool in tools if tool.name in names]
