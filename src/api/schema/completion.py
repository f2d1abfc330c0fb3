"""POST /v1/completions: its body."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from src.api.schema.bounds import AtMost
from src.api.schema.generation import NO_DEFAULTS, GenerationRequest
from src.api.schema.prompt import OneOrMore, TokenList, each
from src.protocol import Generate, TextPrompt, TokenPrompt

Several = AtMost("max_prompts")
Prompt = OneOrMore[str, Annotated[list[str], Several], Annotated[list[TokenList], Several]]


class CompletionRequest(GenerationRequest):
    prompt: Prompt
    logprobs: Annotated[int, Field(ge=0, le=5), AtMost("max_logprobs")] | None = None  # 5 is OpenAI's
    echo: bool | None = None
    suffix: str | None = None

    @field_validator("echo")
    @classmethod
    def _can_be_echoed(cls, echo: bool | None, info: ValidationInfo) -> bool | None:
        if echo and info.data.get("logprobs") is not None:
            raise ValueError("logprobs of the prompt are not computed, so it cannot go with logprobs")
        return echo

    @field_validator("suffix")
    @classmethod
    def _follows_a_text(cls, suffix: str | None, info: ValidationInfo) -> str | None:
        prompt = info.data.get("prompt", "")
        if suffix and not isinstance(prompt if isinstance(prompt, str) else prompt[0], str):
            raise ValueError("it follows a prompt that is a text")
        if suffix and info.data.get("echo"):
            raise ValueError("it cannot go with echo")
        return suffix

    def generate(self, defaults: Mapping[str, float] = NO_DEFAULTS) -> Generate:
        prompts = [
            TextPrompt(text=one, suffix=self.suffix or None) if isinstance(one, str) else TokenPrompt(tokens=one)
            for one in each(self.prompt)
        ]
        return self._generate(prompts, self.max_tokens, defaults, echo=bool(self.echo))

    def _top_logprobs(self) -> int | None:
        return self.logprobs
