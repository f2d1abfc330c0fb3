"""POST /v1/messages, as Anthropic's API has it: its body, and the chat request that says the same. Knows no template."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from src.api.schema.bounds import AtMost
from src.api.schema.fields import INT32_MAX, AsList, AsString, ByShape, ModelName, Strict
from src.api.schema.generation import MaxTokens, StopText
from src.errors import UnsupportedContent, UnsupportedField

KNOWN_BLOCKS = ("text", "thinking", "redacted_thinking", "tool_use", "tool_result")
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class TextBlock(Strict):
    type: Literal["text"]
    text: str
    cache_control: Any = None  # prompts are cached without being asked
    citations: Any = None


class ThinkingBlock(Strict):
    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class RedactedThinkingBlock(Strict):
    type: Literal["redacted_thinking"]
    data: str


class ToolUseBlock(Strict):
    type: Literal["tool_use"]
    id: Name
    name: Name
    input: dict[str, Any]
    cache_control: Any = None


Texts = Annotated[Annotated[str, AsString] | Annotated[list[TextBlock], AtMost("max_content_parts"), AsList], ByShape]


class ToolResultBlock(Strict):
    type: Literal["tool_result"]
    tool_use_id: Name
    content: Texts | None = None
    is_error: bool | None = None
    cache_control: Any = None


Block = Annotated[TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock | ToolResultBlock, Field(discriminator="type")]
Content = Annotated[Annotated[str, AsString] | Annotated[list[Block], AtMost("max_content_parts"), AsList], ByShape]


class InputMessage(Strict):
    role: Literal["user", "assistant", "system"]
    content: Content

    @property
    def blocks(self) -> list[Any]:
        return [TextBlock(type="text", text=self.content)] if isinstance(self.content, str) else self.content

    def as_chat(self) -> Iterator[dict[str, Any]]:
        """A tool's result is a message of its own there."""
        for block in self.blocks:
            if isinstance(block, ToolResultBlock):
                yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": _joined(block.content or "")}
        text = _joined([block for block in self.blocks if isinstance(block, TextBlock)])
        calls = [_call(block) for block in self.blocks if isinstance(block, ToolUseBlock)]
        thinking = "\n".join(block.thinking for block in self.blocks if isinstance(block, ThinkingBlock))
        if self.role != "assistant":
            if text:
                yield {"role": self.role, "content": text}
            return
        extra = {name: value for name, value in (("tool_calls", calls), ("reasoning_content", thinking)) if value}
        yield {"role": "assistant", "content": text or None, **extra}


class Tool(Strict):
    type: str | None = None
    name: Name
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    cache_control: Any = None

    def as_chat(self) -> dict[str, Any]:
        function = {"name": self.name, "description": self.description, "parameters": self.input_schema, "strict": self.strict}
        return {"type": "function", "function": {key: value for key, value in function.items() if value is not None}}


class ToolChoice(Strict):
    type: Literal["auto", "any", "none", "tool"]
    name: Name | None = None
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _names_its_tool(self) -> "ToolChoice":
        if (self.type == "tool") != (self.name is not None):
            raise ValueError("name goes with the type tool, and only with it")
        return self

    def as_chat(self) -> str | dict[str, Any]:
        if self.type == "tool":
            return {"type": "function", "function": {"name": self.name}}
        return {"auto": "auto", "any": "required", "none": "none"}[self.type]


class Thinking(Strict):
    """The budget has no effect: a model thinks as long as it was trained to, within max_tokens."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: int | None = None
    display: str | None = None


class OutputFormat(Strict):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Strict):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class CountTokensRequest(Strict):
    """What shapes the prompt."""

    model: ModelName | None = None
    messages: Annotated[list[InputMessage], Field(min_length=1), AtMost("max_messages")]
    system: Texts | None = None
    tools: Annotated[list[Tool], AtMost("max_tools")] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: Any = None

    @model_validator(mode="before")
    @classmethod
    def _can_be_done_here(cls, body: dict[str, Any]) -> dict[str, Any]:
        _refuse_content(body.get("messages"))
        _refuse_tools(body.get("tools"))
        return body

    def chat(self) -> dict[str, Any]:
        """The body of a chat request."""
        messages = [message for given in self.messages for message in given.as_chat()]
        if system := _joined(self.system or ""):
            messages.insert(0, {"role": "system", "content": system})
        choice, output = self.tool_choice, self.output_config
        thinking = self.thinking.type if self.thinking else None
        schema = output.format.schema_ if output and output.format else None
        last = self.messages[-1]
        body = {
            "model": self.model,
            "messages": messages,
            "tools": [tool.as_chat() for tool in self.tools] if self.tools else None,
            "tool_choice": choice.as_chat() if choice else None,
            "parallel_tool_calls": False if choice and choice.disable_parallel_tool_use else None,
            "chat_template_kwargs": {"enable_thinking": thinking == "enabled"} if thinking in ("enabled", "disabled") else None,
            "reasoning_effort": output.effort if output and output.effort != "high" else None,  # which is the default
            "response_format": {"type": "json_schema", "json_schema": {"name": "output", "schema": schema}} if schema else None,
            # The answer goes on where the last message ends.
            "continue_final_message": True if last.role == "assistant" and not _calls(last) else None,
        }
        return {key: value for key, value in body.items() if value is not None}


class MessagesRequest(CountTokensRequest):
    max_tokens: MaxTokens
    stream: bool | None = None
    stop_sequences: Annotated[list[StopText], AtMost("max_stop")] | None = None
    temperature: float | None = Field(None, ge=0, le=1)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, le=INT32_MAX)

    def chat(self) -> dict[str, Any]:
        names = ("max_tokens", "stream", "temperature", "top_p", "top_k")
        body = {**{name: getattr(self, name) for name in names}, "stop": self.stop_sequences}
        return {**super().chat(), **{key: value for key, value in body.items() if value is not None}}


def _joined(content: str | list[TextBlock]) -> str:
    return content if isinstance(content, str) else "\n".join(block.text for block in content)


def _calls(message: InputMessage) -> bool:
    return any(isinstance(block, ToolUseBlock) for block in message.blocks)


def _call(block: ToolUseBlock) -> dict[str, Any]:
    arguments = json.dumps(block.input, ensure_ascii=False)
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}


def _refuse_content(messages: Any) -> None:
    """Blocks that are no text. What they point to is never fetched. Raises UnsupportedContent."""
    for index, message in enumerate(messages if isinstance(messages, list) else []):
        content = message.get("content") if isinstance(message, dict) else None
        for place, block in enumerate(content if isinstance(content, list) else []):
            param = f"messages[{index}].content[{place}]"
            _refuse_block(block, param)
            inner = block.get("content") if isinstance(block, dict) else None
            for depth, part in enumerate(inner if isinstance(inner, list) else []):
                _refuse_block(part, f"{param}.content[{depth}]")


def _refuse_block(block: Any, param: str) -> None:
    kind = block.get("type") if isinstance(block, dict) else None
    if isinstance(kind, str) and kind not in KNOWN_BLOCKS:
        raise UnsupportedContent(f"{param} is of the type {kind[:64]!r}: this server takes text and tools only.", param)


def _refuse_tools(tools: Any) -> None:
    for index, tool in enumerate(tools if isinstance(tools, list) else []):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if isinstance(kind, str) and kind != "custom":
            raise UnsupportedField(
                f"tools[{index}] is of the type {kind[:64]!r}: this server has no tools of its own.", f"tools[{index}].type"
            )
