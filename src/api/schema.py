"""OpenAI's JSON to Generate, or an error that names the field. Raw JSON stops here."""

import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from src.errors import InvalidValue, MissingField, UnsupportedField
from src.protocol import ChatPrompt, Generate, TextPrompt, TokenPrompt
from src.sampling import SamplingParams

INT32_MAX = 2**31 - 1
_NONE: Mapping[str, float] = MappingProxyType({})
INT64_MAX = 2**63 - 1

# Fields of OpenAI's and the peers' APIs that would change the answer, with the values that ask for nothing.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "best_of": (None, 1),
    "logprobs": (None, False),
    "top_logprobs": (None,),
    "prompt_logprobs": (None,),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "logit_bias": (None, {}),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "prediction": (None,),
    "web_search_options": (None,),
    "reasoning_effort": (None,),
    "verbosity": (None,),
    "echo": (None, False),
    "suffix": (None, ""),
    "min_tokens": (None, 0),
    "stop_token_ids": (None, []),
    "bad_words": (None, []),
    "include_stop_str_in_output": (None, False),
    "guided_json": (None,),
    "guided_regex": (None,),
    "guided_choice": (None,),
    "guided_grammar": (None,),
    "structured_outputs": (None,),
    "grammar": (None, ""),
    "json_schema": (None,),
    "chat_template": (None,),
    "chat_template_kwargs": (None, {}),
    "continue_final_message": (None, False),
    "add_generation_prompt": (None, True),
    "prompt_embeds": (None,),
    "typical_p": (None, 1, 1.0),
    "mirostat": (None, 0),
    "dry_multiplier": (None, 0, 0.0),
    "xtc_probability": (None, 0, 0.0),
}


class _Strict(BaseModel):
    """No coercion: "1" is not a number and true is not 1."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)


# Picks the one form of a field that can be a string or a list, so that an error tells what is wrong with that form.
_ByShape = Discriminator(lambda value: "as list" if isinstance(value, list) else "as string")
_AsString, _AsList = Tag("as string"), Tag("as list")


class StreamOptions(_Strict):
    include_usage: bool | None = None


class TextPart(_Strict):
    type: Literal["text"]
    text: str


Content = Annotated[Annotated[str, _AsString] | Annotated[list[TextPart], Field(min_length=1), _AsList], _ByShape]


class ChatMessage(_Strict):
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


StopText = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Stop = Annotated[Annotated[StopText, _AsString] | Annotated[list[StopText], Field(max_length=16), _AsList], _ByShape]


class GenerationRequest(_Strict):
    """What chat and text completions share. A field that is null counts as not there, as in OpenAI's API."""

    model: Annotated[str, StringConstraints(min_length=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=INT32_MAX)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=INT32_MAX)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=2)
    seed: int | None = Field(None, ge=-INT64_MAX - 1, le=INT64_MAX)
    stop: Stop | None = None
    ignore_eos: bool | None = None

    @field_validator("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", mode="before")
    @classmethod
    def _not_a_boolean(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("expected a number")
        return value

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def _generate(self, prompt: ChatPrompt | TextPrompt | TokenPrompt, max_tokens: int | None, defaults: Mapping[str, float]) -> Generate:
        """`defaults` of the model are for what the request leaves open."""
        asked = {name: getattr(self, name) for name in SamplingParams.__struct_fields__ if getattr(self, name) is not None}
        given = {**defaults, **asked}
        given.setdefault("seed", secrets.randbits(63))
        given["top_k"] = max(0, given.get("top_k", 0))  # vLLM's -1 is our 0: all
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Generate(prompt=prompt, sampling=SamplingParams(**given), max_tokens=max_tokens, stop=stop)


class ChatRequest(GenerationRequest):
    messages: list[ChatMessage] = Field(min_length=1, max_length=2048)
    max_completion_tokens: int | None = Field(None, ge=1, le=INT32_MAX)

    def generate(self, defaults: Mapping[str, float] = _NONE) -> Generate:
        prompt = ChatPrompt(messages=[message.as_dict() for message in self.messages])
        return self._generate(prompt, self.max_completion_tokens or self.max_tokens, defaults)


TokenId = Annotated[int, Field(ge=0, le=INT32_MAX)]
Prompt = Annotated[Annotated[str, _AsString] | Annotated[list[TokenId], Field(min_length=1), _AsList], _ByShape]


class CompletionRequest(GenerationRequest):
    prompt: Prompt

    def generate(self, defaults: Mapping[str, float] = _NONE) -> Generate:
        prompt = TextPrompt(text=self.prompt) if isinstance(self.prompt, str) else TokenPrompt(tokens=self.prompt)
        return self._generate(prompt, self.max_tokens, defaults)


class LoadRequest(_Strict):
    model_name: Annotated[str, StringConstraints(min_length=1)]
    stream: bool | None = None


class UnloadRequest(_Strict):
    model_name: Annotated[str, StringConstraints(min_length=1)]


class DownloadRequest(_Strict):
    """`name`: of the model here; the repository's where it is not given."""

    repo: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]
    source: Literal["modelscope", "huggingface", "pypi"] = "modelscope"
    name: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^/\\.\x00-\x1f-][^/\\\x00-\x1f]*$")] | None = None
    revision: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")] | None = None
    include: Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=200)]], Field(max_length=100)] = []
    stream: bool | None = None


class SwitchRequest(_Strict):
    """`before`: the model whose place is taken; the default one where it is not given."""

    model_name: Annotated[str, StringConstraints(min_length=1)]
    before: Annotated[str, StringConstraints(min_length=1)] | None = None


def parse(kind: type[BaseModel], body: dict[str, Any]) -> Any:
    """The body as `kind`. Raises InvalidValue, MissingField or UnsupportedField; param names the field."""
    try:
        parsed = kind.model_validate(body)
    except ValidationError as error:
        raise _explain(error) from None
    if issubclass(kind, GenerationRequest):
        _refuse_unsupported(body)
    return parsed


def _refuse_unsupported(body: dict[str, Any]) -> None:
    for name, neutral in _UNSUPPORTED.items():
        # By type too: False == 0 and True == 1 in Python, and n=true is a mistake.
        if name in body and not any(body[name] == value and type(body[name]) is type(value) for value in neutral):
            raise UnsupportedField(f"{name} is not supported by this server with the value given. Leave it out.", param=name)


def _explain(error: ValidationError) -> InvalidValue | MissingField:
    """The first thing that is wrong, without echoing what was sent."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    param = _path(first["loc"])
    if first["type"] == "missing":
        return MissingField(f"{param} is required.", param=param)
    reason = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return InvalidValue(
        f"{param} is wrong: expected {reason}." if "should be" in first["msg"] else f"{param} is wrong: {reason}.", param=param
    )


def _path(loc: tuple[int | str, ...]) -> str:
    """("messages", 0, "content", "as string") to messages[0].content: the tags of forms are left out."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier():
            path += f".{part}" if path else part
    return path or "body"
