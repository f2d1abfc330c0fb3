"""POST /v1/completions: its body, and the completion that it asks for."""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from src.api.schema.generation import GenerationRequest
from src.api.schema.limits import AtMost
from src.api.schema.prompt import OneOrMore, TokenList, each
from src.api.schema.text_request import TextRequest
from src.protocol import TextPrompt, TokenPrompt

Several = AtMost("max_prompts")
Prompt = OneOrMore[str, Annotated[list[str], Several], Annotated[list[TokenList], Several]]


class Completion(TextRequest, frozen=True, kw_only=True):
    """`texts`: what to complete, each a string or its tokens. `suffix`: what follows the answer."""

    texts: list[str | list[int]]
    suffix: str | None = None

    @property
    def sequences(self) -> int:
        return self.wishes.n * len(self.texts)

    def prompts(self) -> list[TextPrompt | TokenPrompt]:
        return [TextPrompt(text=text, suffix=self.suffix) if isinstance(text, str) else TokenPrompt(tokens=text) for text in self.texts]


class CompletionRequest(GenerationRequest):
    prompt: Prompt
    logprobs: Annotated[int, Field(ge=0, le=5), AtMost("max_logprobs")] | None = None  # 5 is OpenAI's
    echo: bool | None = None
    suffix: str | None = None

    @field_validator("echo")
    @classmethod
    def _can_be_echoed(cls, echo: bool | None, info: ValidationInfo) -> bool | None:
        if echo and info.data.get("logprobs") is not None:
            raise ValueError("cannot be combined with logprobs: logprobs of the prompt are not computed")
        return echo

    @field_validator("suffix")
    @classmethod
    def _follows_a_text(cls, suffix: str | None, info: ValidationInfo) -> str | None:
        prompt = info.data.get("prompt", "")
        if suffix and not isinstance(prompt if isinstance(prompt, str) else prompt[0], str):
            raise ValueError("requires a prompt that is a string")
        if suffix and info.data.get("echo"):
            raise ValueError("cannot be combined with echo")
        return suffix

    def completion(self) -> Completion:
        fields = self._fields(logprobs=self.logprobs, echo=bool(self.echo))
        return Completion(**fields, texts=each(self.prompt), suffix=self.suffix or None)
