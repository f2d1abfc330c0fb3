"""POST /v1/responses: its body, and the chat request that says the same. Knows no template and no store."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag, TypeAdapter, model_validator

from src.api.schema.bounds import DEFAULTS, AtMost
from src.api.schema.chat import TopLogprobs
from src.api.schema.fields import AsList, AsString, ByShape, ModelName, Strict
from src.api.schema.generation import MaxTokens
from src.errors import UnsupportedContent, UnsupportedField
from src.settings import Limits

LOGPROBS = "message.output_text.logprobs"
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class TextPart(Strict):
    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: Any = None
    logprobs: Any = None


class RefusalPart(Strict):
    type: Literal["refusal"]
    refusal: str


Part = Annotated[TextPart | RefusalPart, Field(discriminator="type")]
Content = Annotated[Annotated[str, AsString] | Annotated[list[Part], AtMost("max_content_parts"), AsList], ByShape]


class Told(Strict):
    """What an item has that was in a response before. It means nothing to the model."""

    id: str | None = None
    status: str | None = None


class MessageItem(Told):
    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: Content


class FunctionCallItem(Told):
    type: Literal["function_call"]
    call_id: Name
    name: Name
    arguments: str


class FunctionOutputItem(Told):
    type: Literal["function_call_output"]
    call_id: Name
    output: Content


class ReasoningText(Strict):
    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(Told):
    """Another server's may have a summary alone, or what only that server can read: neither is what the model thought."""

    type: Literal["reasoning"]
    summary: list[Any] | None = None
    content: Annotated[list[ReasoningText], AtMost("max_content_parts")] | None = None
    encrypted_content: str | None = None


ITEM_KINDS = ("message", "function_call", "function_call_output", "reasoning")


def _kind(item: Any) -> str:
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    return f"as {kind or 'message'}"


Item = Annotated[
    Annotated[MessageItem, Tag("as message")]
    | Annotated[FunctionCallItem, Tag("as function_call")]
    | Annotated[FunctionOutputItem, Tag("as function_call_output")]
    | Annotated[ReasoningItem, Tag("as reasoning")],
    Discriminator(_kind),
]
ITEMS: TypeAdapter[list[Any]] = TypeAdapter(list[Item])
Input = Annotated[Annotated[str, AsString] | Annotated[list[Item], AtMost("max_input_items"), AsList], ByShape]


class Tool(Strict):
    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def as_chat(self) -> dict[str, Any]:
        return {"type": "function", "function": self.model_dump(include={"name", "description", "parameters", "strict"}, exclude_none=True)}


class NamedTool(Strict):
    type: Literal["function"]
    name: Name


class AllowedTools(Strict):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[NamedTool]


ToolChoice = Literal["none", "auto", "required"] | Annotated[NamedTool | AllowedTools, Field(discriminator="type")]


class TextFormat(Strict):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None

    def as_chat(self) -> dict[str, Any]:
        if self.type != "json_schema":
            return {"type": self.type}
        schema = {"name": self.name, "description": self.description, "schema": self.schema_, "strict": self.strict}
        return {"type": "json_schema", "json_schema": {key: value for key, value in schema.items() if value is not None}}


class TextConfig(Strict):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(Strict):
    """Summaries are not made: the reasoning itself is in the answer."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class ResponsesStreamOptions(Strict):
    include_obfuscation: bool | None = None


class ResponsesRequest(Strict):
    model: ModelName | None = None
    input: Input
    instructions: str | None = None
    previous_response_id: Name | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: ResponsesStreamOptions | None = None
    max_output_tokens: MaxTokens | None = None
    max_tool_calls: int | None = Field(None, ge=1)  # of tools that a server has itself
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_logprobs: TopLogprobs | None = None
    tools: Annotated[list[Tool], AtMost("max_tools")] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    include: list[str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    background: bool | None = None
    metadata: dict[str, str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _can_be_done_here(cls, body: dict[str, Any]) -> dict[str, Any]:
        _refuse_items(body.get("input"))
        _refuse_tools(body.get("tools"))
        for name, neutral in (("background", False), ("truncation", "disabled"), ("conversation", None), ("prompt", None)):
            if body.get(name) not in (None, neutral):
                raise UnsupportedField(f"{name} is not supported by this server with the value given. Leave it out.", name)
        return body

    def items(self) -> list[dict[str, Any]]:
        """The input as JSON items."""
        if isinstance(self.input, str):
            return [{"role": "user", "content": self.input}]
        return [item.model_dump(exclude_none=True) for item in self.input]

    def chat(self, history: Iterable[dict[str, Any]] = (), limits: Limits = DEFAULTS) -> dict[str, Any]:
        """The body of a chat request. `history`: items of the responses before this one."""
        text, reasoning = self.text or TextConfig(), self.reasoning
        format = text.format.as_chat() if text.format else None
        logprobs = bool(self.top_logprobs) or LOGPROBS in (self.include or [])
        tools, choice = self._tools_and_choice()
        items = ITEMS.validate_python([*history, *self.items()], context=limits)
        body = {
            "model": self.model,
            "messages": [*([{"role": "system", "content": self.instructions}] if self.instructions else []), *_messages(items)],
            "stream": self.stream,
            "max_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "logprobs": True if logprobs else None,
            "top_logprobs": self.top_logprobs if logprobs else None,
            "tools": tools,
            "tool_choice": choice,
            "parallel_tool_calls": self.parallel_tool_calls if tools else None,
            "response_format": format if format and format["type"] != "text" else None,
            "verbosity": text.verbosity if text.verbosity != "medium" else None,
            "reasoning_effort": reasoning.effort if reasoning else None,
        }
        return {key: value for key, value in body.items() if value is not None}

    def _tools_and_choice(self) -> tuple[list[dict[str, Any]] | None, Any]:
        if not self.tools:
            return None, None
        choice, tools = self.tool_choice, self.tools
        if isinstance(choice, AllowedTools):
            names = {tool.name for tool in choice.tools}
            tools = [tool for tool in tools if tool.name in names]
            return [tool.as_chat() for tool in tools], choice.mode
        named = {"type": "function", "function": {"name": choice.name}} if isinstance(choice, NamedTool) else choice
        return [tool.as_chat() for tool in tools], named


def _messages(items: list[Any]) -> Iterator[dict[str, Any]]:
    """What the assistant thought, said and called one after another is one message there."""
    said: dict[str, Any] = {}
    for item in items:
        if said and not _goes_on(said, item):
            yield _assistant(said)
            said = {}
        if isinstance(item, ReasoningItem):
            thought = [said.get("reasoning_content"), *(part.text for part in item.content or [])]
            if text := "\n".join(filter(None, thought)):
                said["reasoning_content"] = text
        elif isinstance(item, FunctionCallItem):
            function = {"name": item.name, "arguments": item.arguments}
            said.setdefault("tool_calls", []).append({"id": item.call_id, "type": "function", "function": function})
        elif isinstance(item, FunctionOutputItem):
            yield {"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)}
        elif item.role == "assistant":
            said["content"] = _text(item.content)
        else:
            yield {"role": item.role, "content": _text(item.content)}
    if said:
        yield _assistant(said)


def _goes_on(said: dict[str, Any], item: Any) -> bool:
    """Whether it belongs to the assistant's message that has all this: it thinks, then says, then calls."""
    if isinstance(item, FunctionCallItem):
        return True
    is_own = isinstance(item, ReasoningItem) or (isinstance(item, MessageItem) and item.role == "assistant")
    return is_own and not (said.get("content") or said.get("tool_calls"))


def _assistant(said: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": said.get("content"), **{name: said[name] for name in said if name != "content"}}


def _text(content: str | list[Any]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.text if isinstance(part, TextPart) else part.refusal for part in content)


def _refuse_items(items: Any) -> None:
    """What is neither text nor a function's. What it points to is never fetched. Raises UnsupportedField, UnsupportedContent."""
    for index, item in enumerate(items if isinstance(items, list) else []):
        if not isinstance(item, dict):
            continue
        kind = item.get("type")
        if isinstance(kind, str) and kind not in ITEM_KINDS:
            raise UnsupportedField(f"input[{index}] is of the type {kind[:64]!r}, which this server does not take.", f"input[{index}].type")
        for name in ("content", "output"):
            parts = item.get(name)
            for place, part in enumerate(parts if isinstance(parts, list) else []):
                found = part.get("type") if isinstance(part, dict) else None
                if isinstance(found, str) and any(word in found for word in ("image", "file", "audio", "video")):
                    param = f"input[{index}].{name}[{place}]"
                    raise UnsupportedContent(f"{param} is of the type {found[:64]!r}: this server takes text only.", param)


def _refuse_tools(tools: Any) -> None:
    for index, tool in enumerate(tools if isinstance(tools, list) else []):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if isinstance(kind, str) and kind != "function":
            param = f"tools[{index}].type"
            raise UnsupportedField(f"{param}: this server has functions only, no tools of the type {kind[:64]!r}.", param)
