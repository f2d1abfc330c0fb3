"""Messages of OpenAI's chats."""

from typing import Annotated, Literal

from pydantic import AliasChoices, Field, model_validator

from src.api.schema.content import AnyCall, ChatContent, ChatThought, texts
from src.api.schema.conversation import Message, Part, Reasoning, ToolResult
from src.api.schema.fields import Strict
from src.api.schema.limits import AtMost


class ChatMessage(Strict):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: ChatContent | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: Annotated[list[AnyCall], AtMost("max_tool_calls")] | None = None
    reasoning_content: str | None = Field(None, validation_alias=AliasChoices("reasoning_content", "reasoning"))

    @model_validator(mode="after")
    def _calls_as_assistant(self) -> "ChatMessage":
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"has tool_calls, which the role {self.role} cannot have")
        return self

    def message(self) -> Message:
        """developer is OpenAI's newer name of system."""
        parts: list[Part] = [] if self.reasoning_content is None else [Reasoning(self.reasoning_content)]
        said = self.content
        if isinstance(said, list):
            parts += [Reasoning(part.text) for part in said if isinstance(part, ChatThought)]
            said = [part for part in said if not isinstance(part, ChatThought)]
        content = () if said is None else texts(said)
        if not self.tool_call_id:
            parts += content
        else:
            parts.append(ToolResult(self.tool_call_id, content))
        parts += [call.part() for call in self.tool_calls or []]
        return Message("system" if self.role == "developer" else self.role, tuple(parts), self.name)
