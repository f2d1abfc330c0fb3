"""POST /v1/chat/completions: its body. Knows no template."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from src.api.schema.fields import INT32_MAX, AsList, AsString, ByShape, Strict
from src.api.schema.generation import NO_DEFAULTS, GenerationRequest
from src.protocol import ChatPrompt, Generate


class TextPart(Strict):
    type: Literal["text"]
    text: str


Content = Annotated[Annotated[str, AsString] | Annotated[list[TextPart], Field(min_length=1), AsList], ByShape]


class ChatMessage(Strict):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[Any] | None = None

    @model_validator(mode="after")
    def _has_content(self) -> "ChatMessage":
        if self.content is None and self.role != "assistant":
            raise ValueError(f"content is required for the role {self.role}")
        if self.tool_calls:
            raise ValueError("tool_calls are not supported yet")
        return self

    def as_dict(self) -> dict[str, Any]:
        """As a chat template takes it: one string; developer is OpenAI's newer name of system."""
        content = self.content
        if isinstance(content, list):
            content = "\n".join(part.text for part in content)
        role = "system" if self.role == "developer" else self.role
        message = {"role": role, "content": content, "name": self.name, "tool_call_id": self.tool_call_id}
        return {key: value for key, value in message.items() if value is not None or key == "content"}


class ChatRequest(GenerationRequest):
    messages: list[ChatMessage] = Field(min_length=1, max_length=2048)
    max_completion_tokens: int | None = Field(None, ge=1, le=INT32_MAX)

    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)

    @field_validator("top_logprobs")
    @classmethod
    def _go_with_logprobs(cls, count: int | None, info: ValidationInfo) -> int | None:
        if count is not None and not info.data.get("logprobs"):
            raise ValueError("logprobs has to be true with it")
        return count

    def generate(self, defaults: Mapping[str, float] = NO_DEFAULTS) -> Generate:
        prompt = ChatPrompt(messages=[message.as_dict() for message in self.messages])
        return self._generate([prompt], self.max_completion_tokens or self.max_tokens, defaults)

    def _top_logprobs(self) -> int | None:
        return self.top_logprobs or 0 if self.logprobs else None
