"""Messages of a chat request. Knows no template."""

import json
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, StringConstraints, model_validator

from src.api.schema.bounds import AtMost
from src.api.schema.fields import AsList, AsString, ByShape, Strict
from src.errors import UnsupportedContent

MEDIA = ("image", "audio", "video", "file", "document")  # a type of part has one of them in its name
Text = Annotated[str, StringConstraints(min_length=1)]


class TextPart(Strict):
    type: Literal["text", "input_text", "output_text", "refusal"]
    text: str = Field(validation_alias=AliasChoices("text", "refusal"))


Content = Annotated[Annotated[str, AsString] | Annotated[list[TextPart], Field(min_length=1), AtMost("max_content_parts"), AsList], ByShape]


class CalledFunction(Strict):
    name: Text
    arguments: str | dict[str, Any] | None = None  # JSON; some clients send the object itself


class ToolCall(Strict):
    id: Text
    type: Literal["function"] = "function"
    function: CalledFunction

    def as_dict(self) -> dict[str, Any]:
        arguments = self.function.arguments
        text = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
        return {"id": self.id, "type": "function", "function": {"name": self.function.name, "arguments": text or "{}"}}


class ChatMessage(Strict):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: Annotated[list[ToolCall], AtMost("max_tool_calls")] | None = None
    reasoning_content: str | None = Field(None, validation_alias=AliasChoices("reasoning_content", "reasoning"))

    @model_validator(mode="after")
    def _has_content(self) -> "ChatMessage":
        if self.content is None and self.role != "assistant":
            raise ValueError(f"content is required for the role {self.role}")
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"tool_calls are the assistant's, not those of the role {self.role}")
        return self

    def as_dict(self) -> dict[str, Any]:
        """As a chat template takes it: one string; developer is OpenAI's newer name of system."""
        content = self.content
        if isinstance(content, list):
            content = "\n".join(part.text for part in content)
        if content is None and not self.tool_calls:
            content = ""  # templates know no message that says nothing at all
        role = "system" if self.role == "developer" else self.role
        message = {
            "role": role,
            "content": content,
            "name": self.name,
            "tool_call_id": self.tool_call_id,
            "tool_calls": [call.as_dict() for call in self.tool_calls] if self.tool_calls else None,
            "reasoning_content": self.reasoning_content,
        }
        return {key: value for key, value in message.items() if value is not None or key == "content"}


def refuse_media(messages: Any) -> None:
    """Parts that are no text. What they point to is never fetched. Raises UnsupportedContent."""
    for index, message in enumerate(messages if isinstance(messages, list) else []):
        content = message.get("content") if isinstance(message, dict) else None
        for place, part in enumerate(content if isinstance(content, list) else []):
            kind = part.get("type") if isinstance(part, dict) else None
            found = next((word for word in MEDIA if isinstance(kind, str) and word in kind), None)
            if found:
                param = f"messages[{index}].content[{place}]"
                raise UnsupportedContent(f"{param} is a part with {found}: this server takes text only.", param)
