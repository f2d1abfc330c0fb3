"""POST /v1/messages, as Anthropic's API has it: its body, and the chat that it asks for."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from src.api.schema.constraint import Schema, of_schema
from src.api.schema.content import (
    BlockContent,
    Medium,
    TextBlock,
    TextBlocks,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    refuse_new_media,
    texts,
)
from src.api.schema.conversation import Chat, Message, Part, Tool
from src.api.schema.fields import INT32_MAX, ModelName, Strict, type_of
from src.api.schema.generation import MaxTokens, StopText, Temperature, cooled, too_hot
from src.api.schema.limits import DEFAULTS, AtMost, limits_of
from src.api.schema.text_request import Wishes, without_nulls
from src.api.schema.tools import Description, FunctionName, LeftOutTool, Parameters, Tools, all_tools, check_choice
from src.errors import EACH, FieldPath
from src.protocol import Constraint
from src.settings import Limits

NAMES: Mapping[FieldPath, FieldPath] = MappingProxyType(
    {
        ("stop",): ("stop_sequences",),
        ("parallel_tool_calls",): ("tool_choice", "disable_parallel_tool_use"),
        ("tools", EACH, "function"): ("tools", EACH),
        ("tools", EACH, "function", "parameters"): ("tools", EACH, "input_schema"),
        ("response_format",): ("output_config", "format"),
        ("reasoning_effort",): ("output_config", "effort"),
        ("chat_template_kwargs",): ("thinking",),
        ("chat_template_kwargs", "enable_thinking"): ("thinking",),
        ("continue_final_message",): ("messages",),
    }
)


BILLING = "x-anthropic-billing-header:"  # begins a system block of Claude Code's, which differs with each session's first message


class InputMessage(Strict):
    role: Literal["user", "assistant", "system"]
    content: BlockContent | None = None

    @property
    def blocks(self) -> list[Any]:
        return [TextBlock(type="text", text=self.content)] if isinstance(self.content, str) else self.content or []

    @property
    def says_nothing(self) -> bool:
        return all(isinstance(block, TextBlock) and not block.text for block in self.blocks)

    def messages(self, tools: Mapping[str, Tool]) -> Iterator[Message]:
        """A tool's result is a message of its own in a chat. One that says nothing stays: templates want the roles in turn."""
        for block in self.blocks:
            if isinstance(block, ToolResultBlock):
                yield Message("tool", (block.part(tools),))
        if self.role == "assistant":
            text = self._parts(TextBlock)
            yield Message("assistant", (*self._parts(ThinkingBlock), *text, *self._parts(ToolUseBlock)))
        elif (text := self._parts(TextBlock, Medium)) or self.says_nothing:
            yield Message(self.role, text or texts(None))

    def _parts(self, *kinds: type[TextBlock | Medium | ThinkingBlock | ToolUseBlock]) -> tuple[Part, ...]:
        """Those of these kinds; a text or a thought that is empty is none."""
        parts = (block.part() for block in self.blocks if isinstance(block, kinds))
        return tuple(part for part in parts if getattr(part, "text", None) != "")


class MessagesTool(Strict):
    type: Literal["custom"] | None = None
    name: FunctionName
    description: Description | None = None
    input_schema: Parameters | None = None
    strict: bool | None = None
    defer_loading: bool | None = None
    cache_control: Any = None

    def tools(self) -> Sequence[Tool]:
        return (Tool(self.name, self.description, self.input_schema, bool(self.strict), deferred=bool(self.defer_loading)),)


def _tool_tag(tool: Any) -> str:
    return "as custom" if type_of(tool) in (None, "custom") else "as left out"


AnyTool = Annotated[
    Annotated[MessagesTool, Tag("as custom")] | Annotated[SkipJsonSchema[LeftOutTool], Tag("as left out")], Discriminator(_tool_tag)
]


class ToolChoice(Strict):
    type: Literal["auto", "any", "none", "tool"]
    name: FunctionName | None = None
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _names_its_tool(self) -> "ToolChoice":
        if (self.type == "tool") != (self.name is not None):
            raise ValueError("needs a name for the type tool, and only for that type")
        return self


CHOICES: Mapping[str, Literal["auto", "required", "none"]] = MappingProxyType(
    {"auto": "auto", "any": "required", "tool": "required", "none": "none"}
)


class Thinking(Strict):
    """The budget has no effect: a model thinks as long as it was trained to, within max_tokens."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: int | None = None
    display: str | None = None

    def without_effect(self) -> Iterable[str]:
        return ["budget_tokens"] if self.budget_tokens is not None else []


class OutputFormat(Strict):
    type: Literal["json_schema"]
    schema_: Schema = Field(alias="schema")


class OutputConfig(Strict):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class CountTokensRequest(Strict):
    """What shapes the prompt."""

    names: ClassVar[Mapping[FieldPath, FieldPath]] = NAMES

    model: ModelName | None = None
    messages: Annotated[list[InputMessage], Field(min_length=1), AtMost("max_messages")]
    system: TextBlocks | None = None
    tools: Tools[AnyTool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: Any = None
    max_tokens: Any = None  # clients send it to be counted too, where it means nothing

    @field_validator("tool_choice")
    @classmethod
    def _is_there(cls, choice: ToolChoice | None, info: ValidationInfo) -> ToolChoice | None:
        if choice and "tools" in info.data:
            check_choice(all_tools(info.data["tools"]), must_call=CHOICES[choice.type] == "required", name=choice.name)
        return choice

    @model_validator(mode="after")
    def _asks_with_text(self, info: ValidationInfo) -> "CountTokensRequest":
        refuse_new_media("messages", [(message.role, message.content) for message in self.messages], limits_of(info))
        return self

    def chat(self, limits: Limits = DEFAULTS) -> Chat:
        """Raises InvalidValue: see Chat.checked()."""
        choice, messages, tools = self.tool_choice, self._messages(), tuple(all_tools(self.tools))
        last, by_name = messages[-1], {tool.name: tool for tool in tools}
        effort = self.output_config.effort if self.output_config else None
        thinking = self.thinking.type if self.thinking else None
        return Chat(
            **self._fields(),
            messages=(*self._system(), *chain.from_iterable(message.messages(by_name) for message in messages)),
            tools=tools,
            tool_choice=CHOICES[choice.type] if choice else "auto",
            only_tool=choice.name if choice else None,
            parallel_calls=not (choice and choice.disable_parallel_tool_use),
            variables={"enable_thinking": thinking == "enabled"} if thinking in ("enabled", "disabled") else {},
            reasoning_effort=effort if effort != "high" else None,  # which is the default
            continued=last.role == "assistant" and not any(isinstance(block, ToolUseBlock) for block in last.blocks),
        ).checked(limits)

    def _messages(self) -> list[InputMessage]:
        """Without a last one in which the assistant says nothing: it is the answer's place, and there is nothing to continue."""
        last = self.messages[-1]
        return self.messages[:-1] if len(self.messages) > 1 and last.role == "assistant" and last.says_nothing else self.messages

    def _system(self) -> Iterator[Message]:
        """Without the billing block: no two sessions would share the prefix behind it."""
        if parts := tuple(part for part in texts(self.system) if part.text and not part.text.startswith(BILLING)):
            yield Message("system", parts)

    def _fields(self) -> dict[str, Any]:
        """Those that a TextRequest has."""
        return {"model": self.model, "wishes": Wishes(constraint=self._constraint())}

    def _constraint(self) -> Constraint | None:
        format = self.output_config.format if self.output_config else None
        return of_schema(format.schema_, "response_format") if format and format.schema_ else None


class MessagesRequest(CountTokensRequest):
    max_tokens: MaxTokens
    stream: bool | None = None
    stop_sequences: Annotated[list[StopText], AtMost("max_stop")] | None = None
    temperature: Temperature | None = None  # above 1 too, as other APIs have it
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=INT32_MAX)

    def without_effect(self) -> Iterable[str]:
        return [*super().without_effect(), *too_hot(self.temperature)]

    def _fields(self) -> dict[str, Any]:
        wishes = Wishes(
            sampling=without_nulls(temperature=cooled(self.temperature), top_p=self.top_p, top_k=self.top_k),
            max_tokens=self.max_tokens,
            stop=[text for text in self.stop_sequences or [] if text],
            constraint=self._constraint(),
        )
        return {"model": self.model, "stream": bool(self.stream), "wishes": wishes}
