"""A request for text that has been parsed, whichever API it came by: what the gateway asks a model's runner for."""

import secrets
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from src.protocol import ChatPrompt, Constraint, Generate, TextPrompt, TokenPrompt
from src.sampling import SamplingParams

COLDEST = 1e-5  # a temperature below is 0: divided by it, logits are beyond what 32 bits hold
NO_DEFAULTS: Mapping[str, float] = MappingProxyType({})


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """How the answer is sampled, what it has to be and where it ends."""

    sampling: dict[str, Any] = {}  # fields of SamplingParams; the model's defaults stand for those that are left out
    n: int = 1
    max_tokens: int | None = None  # None: up to the end of the context
    stop: list[str] = []
    include_stop: bool = False  # the stop string is a part of the answer
    constraint: Constraint | None = None
    echo: bool = False  # the prompt's text comes first


class TextRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Base of Chat and Completion. None of it is random: two bodies that ask for the same are equal."""

    model: str | None = None
    timeout: float | None = None  # seconds
    stream: bool = False
    include_usage: bool = False  # in a stream
    usage_in_every_chunk: bool = False
    timings: bool = False
    wishes: Wishes = Wishes()

    def prompts(self) -> Sequence[ChatPrompt | TextPrompt | TokenPrompt]:
        raise NotImplementedError

    @property
    def sequences(self) -> int:
        """How many it has: so many choices for each prompt."""
        return self.wishes.n

    @property
    def custom_tools(self) -> tuple[str, ...]:
        """Names of the tools whose calls have a text in place of arguments."""
        return ()

    def generate(self, defaults: Mapping[str, float] = NO_DEFAULTS) -> Generate:
        """`defaults`: the model's, for sampling parameters that the request leaves out. Without a seed each call draws one."""
        wishes = self.wishes
        return Generate(
            prompts=list(self.prompts()),
            n=wishes.n,
            sampling=_sampling(wishes.sampling, defaults),
            max_tokens=wishes.max_tokens,
            stop=wishes.stop,
            include_stop=wishes.include_stop,
            constraint=wishes.constraint,
            echo=wishes.echo,
        )

    def model_dump(self, *, mode: str = "json") -> dict[str, Any]:
        """As plain JSON values, for a digest of what is asked."""
        dumped: dict[str, Any] = msgspec.to_builtins(self, str_keys=mode == "json")
        return dumped


def without_nulls(**fields: Any) -> dict[str, Any]:
    """Those that are set: a field that is null counts as not there, as in OpenAI's API."""
    return {name: value for name, value in fields.items() if value is not None}


def _sampling(wished: Mapping[str, Any], defaults: Mapping[str, float]) -> SamplingParams:
    params: dict[str, Any] = {"seed": secrets.randbits(63), **defaults, **wished}
    if params.get("temperature", 1.0) < COLDEST:
        params["temperature"] = 0.0
    params["top_k"] = max(0, params.get("top_k", 0))  # vLLM's -1 is our 0: all
    return SamplingParams(**params)
