"""One chat, whichever API it came by: messages of typed parts, the tools that may be called, and how the answer has to be."""

import json
from typing import Any, Literal

import msgspec

from src.api.schema.text_request import TextRequest
from src.errors import FIELD, InvalidValue
from src.protocol import ChatPrompt
from src.settings import Limits

Role = Literal["system", "user", "assistant", "tool", "function"]


class Text(msgspec.Struct, frozen=True, tag=True):
    text: str


class Image(msgspec.Struct, frozen=True, tag=True):
    """No API makes one yet: content.py refuses pictures. `source`: where it is, as a data URL."""

    source: str


class Reasoning(msgspec.Struct, frozen=True, tag=True):
    """What the assistant thought before it answered."""

    text: str


class ToolCall(msgspec.Struct, frozen=True, tag=True):
    id: str
    name: str
    arguments: str  # JSON


class ToolResult(msgspec.Struct, frozen=True, tag=True):
    """What the call of this id returned."""

    call_id: str
    content: tuple[Text | Image, ...]


Part = Text | Image | Reasoning | ToolCall | ToolResult


class Message(msgspec.Struct, frozen=True):
    role: Role
    parts: tuple[Part, ...]
    name: str | None = None

    @property
    def calls(self) -> list[ToolCall]:
        return [part for part in self.parts if isinstance(part, ToolCall)]

    @property
    def text(self) -> str | None:
        """None where it has no part with text, which is not the same as an empty one."""
        texts: list[str] = []
        for part in self.parts:
            if isinstance(part, ToolResult):
                texts += [inner.text for inner in part.content if isinstance(inner, Text)]
            elif isinstance(part, Text):
                texts.append(part.text)
        return "\n".join(texts) if texts else None

    def as_dict(self) -> dict[str, Any]:
        """As chat templates take it: OpenAI's form, with one string as content."""
        calls, content = self.calls, self.text
        result = next((part for part in self.parts if isinstance(part, ToolResult)), None)
        thoughts = [part.text for part in self.parts if isinstance(part, Reasoning)]
        if content is None and not calls:
            content = ""  # templates know no message that says nothing at all
        message: dict[str, Any] = {"role": self.role, "content": content}
        if self.name is not None:
            message["name"] = self.name
        if result:
            message["tool_call_id"] = result.call_id
        if calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in calls
            ]
        if thoughts:
            message["reasoning_content"] = "\n".join(thoughts)
        return message


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may call. `parameters`: the JSON schema of its arguments."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool = False
    custom: bool = False  # a call's arguments are one text to the client
    deferred: bool = False  # may be called, but is not in the prompt's list: a result in the conversation brings it

    def as_dict(self) -> dict[str, Any]:
        """As chat templates take it: with a description and a schema, even if they say nothing."""
        parameters = self.parameters or {"type": "object", "properties": {}}
        function = {"name": self.name, "description": self.description or "", "parameters": parameters}
        return {"type": "function", "function": {**function, "strict": True} if self.strict else function}


class Chat(TextRequest, frozen=True, kw_only=True):
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["auto", "none", "required"] = "auto"
    only_tool: str | None = None  # the name of the one that has to be called
    parallel_calls: bool = True  # more than one call is allowed
    variables: dict[str, Any] = {}  # for the chat template
    reasoning_effort: str | None = None
    generation_prompt: bool = True  # the prompt ends where the assistant's answer begins
    continued: bool = False  # the answer continues the last message

    def checked(self, limits: Limits) -> "Chat":
        """This chat. Raises InvalidValue for what only the whole of it shows."""
        if not self.messages:
            raise InvalidValue(f"{FIELD} must not be empty.", "messages")
        if len(self.messages) > limits.max_messages:
            raise InvalidValue(f"{FIELD} has too many items: MAX_MESSAGES allows {limits.max_messages}.", "messages")
        if any(len(message.calls) > limits.max_tool_calls for message in self.messages):
            raise InvalidValue(f"{FIELD} has too many tool calls in a row: MAX_TOOL_CALLS allows {limits.max_tool_calls}.", "messages")
        self._check_arguments(limits)
        last = self.messages[-1]
        if self.continued and (last.role != "assistant" or not last.text or last.calls):
            reason = "the answer can only continue a last message from the assistant that has text and no tool calls"
            raise InvalidValue(f"{FIELD}: {reason}.", "continue_final_message")
        return self

    def _check_arguments(self, limits: Limits) -> None:
        """They are JSON within the body's JSON, which templates want parsed. Raises InvalidValue where that would take long."""
        arguments = "".join(call.arguments for message in self.messages for call in message.calls)
        for what, marks, most in (("objects and arrays", "{[", "max_json_containers"), ("values", ",", "max_json_values")):
            if sum(map(arguments.count, marks)) > getattr(limits, most):
                told = f"the arguments of tool calls have too many {what}: {most.upper()} allows {getattr(limits, most)}"
                raise InvalidValue(f"{FIELD}: {told}.", "messages")

    @property
    def custom_tools(self) -> tuple[str, ...]:
        return tuple(tool.name for tool in self.tools if tool.custom)

    def prompts(self) -> list[ChatPrompt]:
        return [self.prompt()]

    def prompt(self) -> ChatPrompt:
        return ChatPrompt(
            messages=[message.as_dict() for message in self.messages],
            # Tools that the model must not call are not shown to it.
            tools=[tool.as_dict() for tool in self.tools] if self.tool_choice != "none" else [],
            must_call=self.tool_choice == "required",
            only_tool=self.only_tool,
            parallel_calls=self.parallel_calls,
            variables=self.variables,
            deferred_tools=[tool.name for tool in self.tools if tool.deferred],
            reasoning_effort=self.reasoning_effort,
            generation_prompt=self.generation_prompt,
            continued=self.continued,
        )


def arguments_of(value: str | dict[str, Any] | None) -> str:
    """A call's arguments as JSON; some clients send the object itself."""
    return (value if isinstance(value, str) else json.dumps(value or {}, ensure_ascii=False)) or "{}"
