"""What the bodies of OpenAI's chats and completions have in common."""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field, StringConstraints, field_validator

from src.api.schema.constraint import ConstraintFields
from src.api.schema.fields import INT32_MAX, INT64_MAX, AsList, AsString, ByShape, ModelName, Strict
from src.api.schema.limits import AtMost
from src.api.schema.numbers import OrNone, whole
from src.api.schema.text_request import Wishes, without_nulls

RANDOM = -1  # a seed; so it is with llama-server and vLLM


class StreamOptions(Strict):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


StopText = Annotated[str, AtMost("max_stop_length")]  # an empty one stops nothing
Stop = Annotated[Annotated[StopText, AsString] | Annotated[list[StopText], AtMost("max_stop"), AsList], ByShape]


MAX_TOKENS = 2**20  # more than any context holds
TokenId = Annotated[int, Field(ge=0, le=INT32_MAX), BeforeValidator(whole)]
TokenKey = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,10}$")]  # JSON's keys are strings
LogitBias = Annotated[dict[TokenKey, Annotated[float, Field(ge=-100, le=100)]], AtMost("max_logit_bias")]
MaxTokens = Annotated[int, Field(ge=1, le=INT32_MAX)]  # cut to what MAX_COMPLETION_TOKENS and the context allow
MostTokens = Annotated[MaxTokens | None, OrNone(-1)]
Temperature = Annotated[float, Field(ge=0)]
HOTTEST = 2.0  # what is above is taken for this


def cooled(temperature: float | None) -> float | None:
    return temperature and min(temperature, HOTTEST)


def too_hot(temperature: float | None) -> Iterable[str]:
    """The field's name, where cooled() changes it."""
    return ["temperature"] if cooled(temperature) != temperature else []


class GenerationRequest(ConstraintFields):
    """A field that is null counts as not there, as in OpenAI's API."""

    model: ModelName | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: MostTokens = None
    temperature: Temperature | None = None
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
            raise ValueError("must be a number")
        return value

    def without_effect(self) -> Iterable[str]:
        return too_hot(self.temperature)

    def _fields(self, *, logprobs: int | None, max_tokens: int | None = None, echo: bool = False) -> dict[str, Any]:
        """Those of the TextRequest that it asks for. `logprobs`: how many of the likeliest tokens each has; None: none are asked for."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        stream_options = self.stream_options or StreamOptions()
        return {
            "model": self.model,
            "timeout": self.timeout,
            "stream": bool(self.stream),
            "include_usage": bool(stream_options.include_usage),
            "usage_in_every_chunk": bool(stream_options.include_usage and stream_options.continuous_usage_stats),
            "timings": bool(self.timings),
            "wishes": Wishes(
                sampling=self._sampling(logprobs),
                n=self.n or 1,
                max_tokens=max_tokens or self.max_tokens,
                stop=[text for text in stop if text],
                include_stop=bool(self.include_stop_str_in_output),
                constraint=self.constraint(),
                echo=echo,
            ),
        }

    def _sampling(self, logprobs: int | None) -> dict[str, Any]:
        return without_nulls(
            temperature=cooled(self.temperature),
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed if self.seed != RANDOM else None,
            ignore_eos=self.ignore_eos,
            logit_bias={int(token): bias for token, bias in self.logit_bias.items()} if self.logit_bias else None,
            stop_tokens=self.stop_token_ids,
            min_tokens=self.min_tokens,
            logprobs=logprobs,
        )
