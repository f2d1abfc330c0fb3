"""From a checked request for text to what a runner is asked, and to what its response contains beside the answer."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import flask
from msgspec.structs import replace

from src.api.access.quotas import quotas
from src.api.access.scopes import sharer
from src.api.gateway import gateway
from src.api.render.base import ResponseOptions
from src.api.schema.text_request import TextRequest
from src.errors import FIELD, FieldPath, InvalidValue, field_name, renamed
from src.protocol import Generate, ModelReady

USUAL_CONTEXT = 4096  # tokens of a sequence, where no setting says


class ReplyHead(NamedTuple):
    """What a reply says of itself whatever its events are; a renderer's first arguments."""

    id: str
    created: int  # Unix seconds
    model: str
    fingerprint: str
    wants: ResponseOptions


def runner_request(request: TextRequest) -> Callable[[ModelReady], Generate]:
    """What to ask a runner, once it is known which: sampling defaults and adapters are its model's. Raises TooManyRequests
    where the limits have no room for its sequences."""
    quotas().admit_sequences(request.sequences)
    key, max_tokens = sharer(), _max_tokens(request)

    def for_runner(ready: ModelReady) -> Generate:
        return replace(request.generate(ready.sampling), key=key, adapter=ready.adapter, max_tokens=max_tokens)

    return for_runner


def note_ignored(paths: Iterable[FieldPath]) -> None:
    """Fields that have no effect on the model that answers, for X-Ignored-Fields. Within the request, before its response is sent."""
    names = flask.g.get("field_names", {})
    more = [field_name(renamed(path, names)) for path in paths]
    flask.g.ignored_fields = list(dict.fromkeys([*flask.g.get("ignored_fields", ()), *more]))


def _max_tokens(request: TextRequest) -> int | None:
    """Of each sequence, within what the settings allow; None: as many as the context holds. Raises InvalidValue where all together
    may report more logprobs than the setting allows: the whole of a plain answer is held until it has ended."""
    settings, wishes = gateway().settings, request.wishes
    top: int | None = wishes.sampling.get("logprobs")
    most = settings.max_completion_tokens or None
    wished = min(filter(None, (wishes.max_tokens, most)), default=None)
    if top is None:
        return wished
    reported = request.sequences * (1 + top)
    allowed = settings.max_answer_logprobs // reported
    if (wished or settings.context_length or USUAL_CONTEXT) > allowed:
        what = f"{request.sequences} choices with {1 + top} logprobs at each token"
        instead = f"at most {allowed}, or ask for fewer choices or logprobs" if allowed else "smaller, and ask for fewer choices"
        raise InvalidValue(
            f"{FIELD} must be {instead}: of {what}, MAX_ANSWER_LOGPROBS allows {settings.max_answer_logprobs}.", "max_tokens"
        )
    return min(allowed, wished or allowed)


def response_options(request: TextRequest, generate: Generate) -> ResponseOptions:
    return ResponseOptions(
        choices=generate.n * len(generate.prompts),
        logprobs=generate.sampling.logprobs is not None,
        usage=request.include_usage or not request.stream,
        running_usage=request.usage_in_every_chunk,
        timings=bool(request.timings),
        custom_tools=request.custom_tools,
    )
