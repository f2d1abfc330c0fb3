"""What chat and text completions share. Knows no prompt."""

import secrets
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AliasChoices, Field, StringConstraints, field_validator

from src.api.schema.bounds import AtMost
from src.api.schema.constraint import ConstraintFields
from src.api.schema.fields import INT32_MAX, INT64_MAX, AsList, AsString, ByShape, ModelName, Strict
from src.protocol import ChatPrompt, Generate, TextPrompt, TokenPrompt
from src.sampling import SamplingParams

COLDEST = 1e-5  # a temperature below is 0: divided by it, logits are beyond what 32 bits hold
NO_DEFAULTS: Mapping[str, float] = MappingProxyType({})


class StreamOptions(Strict):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


StopText = Annotated[str, StringConstraints(min_length=1), AtMost("max_stop_length")]
Stop = Annotated[Annotated[StopText, AsString] | Annotated[list[StopText], AtMost("max_stop"), AsList], ByShape]


TokenId = Annotated[int, Field(ge=0, le=INT32_MAX)]
TokenKey = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,10}$")]  # JSON's keys are strings
LogitBias = Annotated[dict[TokenKey, Annotated[float, Field(ge=-100, le=100)]], AtMost("max_logit_bias")]
MaxTokens = Annotated[int, Field(ge=1, le=INT32_MAX), AtMost("max_completion_tokens")]


class GenerationRequest(ConstraintFields):
    """What chat and text completions share. A field that is null counts as not there, as in OpenAI's API."""

    model: ModelName | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: MaxTokens | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=INT32_MAX)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=0.01, le=2, validation_alias=AliasChoices("repetition_penalty", "repeat_penalty"))
    seed: int | None = Field(None, ge=-INT64_MAX - 1, le=INT64_MAX)
    stop: Stop | None = None
    ignore_eos: bool | None = None
    n: Annotated[int, Field(ge=1), AtMost("max_n")] | None = None
    logit_bias: LogitBias | None = None
    min_tokens: int | None = Field(None, ge=0, le=INT32_MAX)
    stop_token_ids: Annotated[list[TokenId], AtMost("max_stop_token_ids")] | None = None
    include_stop_str_in_output: bool | None = None
    timings: bool | None = None
    timeout: float | None = Field(None, gt=0, le=86_400)

    @field_validator(
        "temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "timeout", mode="before"
    )
    @classmethod
    def _not_a_boolean(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("expected a number")
        return value

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def usage_in_every_chunk(self) -> bool:
        return bool(self.include_usage and self.stream_options and self.stream_options.continuous_usage_stats)

    def _generate(
        self, prompts: Sequence[ChatPrompt | TextPrompt | TokenPrompt], max_tokens: int | None, defaults: Mapping[str, float], **fields: Any
    ) -> Generate:
        """`defaults` of the model are for what the request leaves open; `fields` are what only one kind of request has."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Generate(
            prompts=list(prompts),
            n=self.n or 1,
            sampling=self._sampling(defaults),
            max_tokens=max_tokens,
            stop=stop,
            include_stop=bool(self.include_stop_str_in_output),
            constraint=self.constraint(),
            **fields,
        )

    def _sampling(self, defaults: Mapping[str, float]) -> SamplingParams:
        names = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
        given: dict[str, Any] = {**defaults, **{name: getattr(self, name) for name in names if getattr(self, name) is not None}}
        if given.get("temperature", 1.0) < COLDEST:
            given["temperature"] = 0.0
        given["top_k"] = max(0, given.get("top_k", 0))  # vLLM's -1 is our 0: all
        return SamplingParams(
            seed=secrets.randbits(63) if self.seed is None else self.seed,
            ignore_eos=bool(self.ignore_eos),
            logit_bias={int(token): bias for token, bias in (self.logit_bias or {}).items()},
            stop_tokens=self.stop_token_ids or [],
            min_tokens=self.min_tokens or 0,
            logprobs=self._top_logprobs(),
            **given,
        )

    def _top_logprobs(self) -> int | None:
        """How many of the likeliest tokens each token's logprobs tell; None where none are wanted."""
        raise NotImplementedError
