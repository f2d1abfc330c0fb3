"""POST /v1/messages, as Anthropic's API has it: its body, and the chat that it asks for."""

from collections.abc import Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationInfo, WithJsonSchema, field_validator, model_validator

from src.api.schema.constraint import Schema, of_schema
from src.api.schema.content import BlockContent, TextBlock, TextBlocks, ThinkingBlock, ToolResultBlock, ToolUseBlock, texts
from src.api.schema.conversation import Chat, Message, Part, Text, Tool
from src.api.schema.fields import INT32_MAX, ModelName, Strict, unsupported
from src.api.schema.generation import MaxTokens, StopText
from src.api.schema.limits import DEFAULTS, AtMost
from src.api.schema.text_request import Wishes, without_nulls
from src.api.schema.tools import Description, FunctionName, Parameters, Tools, check_choice
from src.errors import EACH, FieldPath, UnsupportedField
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


class InputMessage(Strict):
    role: Literal["user", "assistant", "system"]
    content: BlockContent | None = None

    @property
    def blocks(self) -> list[Any]:
        return [TextBlock(type="text", text=self.content)] if isinstance(self.content, str) else self.content or []

    @property
    def says_nothing(self) -> bool:
        return all(isinstance(block, TextBlock) and not block.text for block in self.blocks)

    def messages(self) -> Iterator[Message]:
        """A tool's result is a message of its own in a chat. One that says nothing stays: templates want the roles in turn."""
        for block in self.blocks:
            if isinstance(block, ToolResultBlock):
                yield Message("tool", (block.part(),))
        text = self._parts(TextBlock)
        if self.role == "assistant":
            yield Message("assistant", (*self._parts(ThinkingBlock), *text, *self._parts(ToolUseBlock)))
        elif text or self.says_nothing:
            yield Message(self.role, text or texts(None))

    def _parts(self, kind: type[TextBlock | ThinkingBlock | ToolUseBlock]) -> tuple[Part, ...]:
        """Those of one kind; a text or a thought that is empty is none."""
        parts = tuple(block.part() for block in self.blocks if isinstance(block, kind))
        return () if len(parts) == 1 and getattr(parts[0], "text", None) == "" else parts


def _check_type(kind: str) -> str:
    if kind != "custom":
        raise unsupported(UnsupportedField, f"is {kind[:64]!r}, but this server has no tools of its own")
    return kind


class MessagesTool(Strict):
    type: Annotated[str, AfterValidator(_check_type), WithJsonSchema({"type": "string", "const": "custom"})] | None = None
    name: FunctionName
    description: Description | None = None
    input_schema: Parameters | None = None
    strict: bool | None = None
    cache_control: Any = None

    @property
    def function_name(self) -> str:
        return self.name

    def tool(self) -> Tool:
        return Tool(self.name, self.description, self.input_schema, bool(self.strict))


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
    tools: Tools[MessagesTool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: Any = None

    @field_validator("tool_choice")
    @classmethod
    def _is_there(cls, choice: ToolChoice | None, info: ValidationInfo) -> ToolChoice | None:
        if choice and "tools" in info.data:
            check_choice(info.data["tools"], must_call=CHOICES[choice.type] == "required", name=choice.name)
        return choice

    def chat(self, limits: Limits = DEFAULTS) -> Chat:
        """Raises InvalidValue: see Chat.checked()."""
        choice, messages = self.tool_choice, self._messages()
        last = messages[-1]
        effort = self.output_config.effort if self.output_config else None
        thinking = self.thinking.type if self.thinking else None
        return Chat(
            **self._fields(),
            messages=(*self._system(), *chain.from_iterable(message.messages() for message in messages)),
            tools=tuple(tool.tool() for tool in self.tools or []),
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
        parts = texts(self.system)
        if parts != (Text(""),):
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
    temperature: float | None = Field(None, ge=0, le=1)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, le=INT32_MAX)

    def _fields(self) -> dict[str, Any]:
        wishes = Wishes(
            sampling=without_nulls(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k),
            max_tokens=self.max_tokens,
            stop=[text for text in self.stop_sequences or [] if text],
            constraint=self._constraint(),
        )
        return {"model": self.model, "stream": bool(self.stream), "wishes": wishes}
