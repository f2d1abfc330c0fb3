"""POST /v1/chat/completions: its body, and the chat that it asks for."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from src.api.schema import tool_choice as choices
from src.api.schema.chat_messages import ChatMessage
from src.api.schema.content import refuse_new_media
from src.api.schema.conversation import Chat
from src.api.schema.generation import GenerationRequest, MostTokens
from src.api.schema.limits import DEFAULTS, AtMost, limits_of
from src.api.schema.template_variables import TemplateVariables
from src.api.schema.tool_choice import ToolChoice
from src.api.schema.tools import AnyChatTool, Tools, all_tools
from src.settings import Limits

TopLogprobs = Annotated[int, Field(ge=0), AtMost("max_logprobs")]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class ChatRequest(GenerationRequest):
    messages: Annotated[list[ChatMessage], Field(min_length=1), AtMost("max_messages")]
    max_completion_tokens: MostTokens = None

    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None

    tools: Tools[AnyChatTool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None

    reasoning_effort: Effort | None = None
    verbosity: str | None = None
    chat_template_kwargs: TemplateVariables | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    @field_validator("top_logprobs")
    @classmethod
    def _goes_with_logprobs(cls, count: int | None, info: ValidationInfo) -> int | None:
        if count and not info.data.get("logprobs"):
            raise ValueError("requires logprobs to be true")
        return count

    @field_validator("tool_choice")
    @classmethod
    def _is_there(cls, choice: Any, info: ValidationInfo) -> Any:
        if "tools" in info.data:
            choices.check(choice, list(all_tools(info.data["tools"])))
        return choice

    @field_validator("continue_final_message")
    @classmethod
    def _begins_no_message(cls, continues: bool | None, info: ValidationInfo) -> bool | None:
        if continues and info.data.get("add_generation_prompt"):
            raise ValueError("cannot be combined with add_generation_prompt, which begins a new message")
        return continues

    @model_validator(mode="after")
    def _asks_with_text(self, info: ValidationInfo) -> "ChatRequest":
        refuse_new_media("messages", [(message.role, message.content) for message in self.messages], limits_of(info))
        return self

    def without_effect(self) -> Iterable[str]:
        return [*super().without_effect(), *(["verbosity"] if self.verbosity not in (None, "medium") else [])]

    def chat(self, limits: Limits = DEFAULTS) -> Chat:
        """Raises InvalidValue: see Chat.checked()."""
        return Chat(
            **self._fields(max_tokens=self.max_completion_tokens, logprobs=self.top_logprobs or 0 if self.logprobs else None),
            messages=tuple(message.message() for message in self.messages),
            tools=tuple(choices.allowed(self.tool_choice, list(all_tools(self.tools)))),
            **choices.of_chat(self.tool_choice),
            parallel_calls=self.parallel_tool_calls is not False,
            variables=self.chat_template_kwargs or {},
            reasoning_effort=self.reasoning_effort,
            generation_prompt=self.add_generation_prompt is not False,
            continued=bool(self.continue_final_message),
        ).checked(limits)
