"""POST /v1/chat/completions: its body. Knows no template."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from src.api.schema.bounds import AtMost
from src.api.schema.fields import AsObject, AsString, ByKind
from src.api.schema.generation import NO_DEFAULTS, GenerationRequest, MaxTokens
from src.api.schema.messages import ChatMessage, refuse_media
from src.api.schema.template import TemplateVariables
from src.api.schema.tools import NamedChoice, Tools
from src.protocol import ChatPrompt, Generate

ToolChoice = Annotated[Annotated[Literal["none", "auto", "required"], AsString] | Annotated[NamedChoice, AsObject], ByKind]
TopLogprobs = Annotated[int, Field(ge=0), AtMost("max_logprobs")]


class ChatRequest(GenerationRequest):
    messages: Annotated[list[ChatMessage], Field(min_length=1), AtMost("max_messages")]
    max_completion_tokens: MaxTokens | None = None

    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None

    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None

    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    chat_template_kwargs: TemplateVariables | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, body: Any) -> Any:
        if isinstance(body, dict):
            refuse_media(body.get("messages"))
        return body

    @field_validator("top_logprobs")
    @classmethod
    def _go_with_logprobs(cls, count: int | None, info: ValidationInfo) -> int | None:
        if count is not None and not info.data.get("logprobs"):
            raise ValueError("logprobs has to be true with it")
        return count

    @field_validator("tools")
    @classmethod
    def _differ(cls, tools: Tools | None) -> Tools | None:
        names = [tool.function.name for tool in tools or []]
        if twice := next((name for index, name in enumerate(names) if name in names[:index]), None):
            raise ValueError(f"two functions have the name {twice}")
        return tools

    @field_validator("tool_choice")
    @classmethod
    def _is_there(cls, choice: Any, info: ValidationInfo) -> Any:
        if choice in (None, "none", "auto") or "tools" not in info.data:
            return choice
        names = [tool.function.name for tool in info.data["tools"] or []]
        if not names:
            raise ValueError("tools are required with it")
        if isinstance(choice, NamedChoice) and choice.function.name not in names:
            raise ValueError(f"tools have no function {choice.function.name}")
        return choice

    @field_validator("continue_final_message")
    @classmethod
    def _can_go_on(cls, goes_on: bool | None, info: ValidationInfo) -> bool | None:
        if not goes_on:
            return goes_on
        if info.data.get("add_generation_prompt"):
            raise ValueError("it cannot go with add_generation_prompt, which begins a message of its own")
        last = info.data["messages"][-1] if info.data.get("messages") else None
        if last and (last.role != "assistant" or not last.as_dict()["content"] or last.tool_calls):
            raise ValueError("the last message has to be the assistant's, with content and no tool calls")
        return goes_on

    def generate(self, defaults: Mapping[str, float] = NO_DEFAULTS) -> Generate:
        choice = self.tool_choice or "auto"
        # Tools that the model must not call are not shown to it.
        tools = [tool.as_dict() for tool in self.tools or []] if choice != "none" else []
        only = choice.function.name if isinstance(choice, NamedChoice) else None
        prompt = ChatPrompt(
            messages=[message.as_dict() for message in self.messages],
            tools=tools,
            must_call=only is not None or choice == "required",
            only_tool=only,
            parallel_calls=self.parallel_tool_calls is not False,
            variables=self.chat_template_kwargs or {},
            reasoning_effort=self.reasoning_effort,
            generation_prompt=self.add_generation_prompt is not False,
            continued=bool(self.continue_final_message),
        )
        return self._generate([prompt], self.max_completion_tokens or self.max_tokens, defaults)

    def _top_logprobs(self) -> int | None:
        return self.top_logprobs or 0 if self.logprobs else None
