"""One generation over HTTP: resolve the model, ask its runner, stream the reply or fold it. Knows no field of a request."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

import flask

from src.api import failures
from src.api.pursuit import Pursuit
from src.api.record import Record, record
from src.api.render import Renderer, Wants, server_sent_events
from src.api.schema import ChatRequest, CompletionRequest
from src.api.service import client_socket, json_response, service
from src.protocol import Delta, Finished, Generate, Started


def reply(request: ChatRequest | CompletionRequest, kind: type[Renderer], prefix: str) -> flask.Response:
    """The response to a request for text. Nothing is committed to before the runner has started on it."""
    of = record()
    to = service()
    pursuit = Pursuit(to.manager, request.model, lambda ready: request.generate(ready.sampling), to.deadline(), client_socket())
    try:
        of.model = pursuit.ready.model
        events = _noted(iter(pursuit), of)
        first = next(event for event in events if event is not None)
        renderer = kind(
            id=f"{prefix}-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=pursuit.ready.model,
            fingerprint=pursuit.ready.fingerprint,
            wants=_wants(request, pursuit.asked),
        )
        chunks = renderer.chunks(_chain(first, events))
        if not request.stream:
            return json_response(renderer.fold(chunks))
    except BaseException:
        pursuit.close()
        raise
    finally:
        if not request.stream:
            pursuit.close()
    response = flask.Response(failures.events(server_sent_events(chunks)), mimetype="text/event-stream")
    # Not in the generator: one that was never begun, because its client hung up before the first byte, runs no finally.
    response.call_on_close(pursuit.close)
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would collect the events otherwise
    return response


def _wants(request: ChatRequest | CompletionRequest, asked: Generate) -> Wants:
    return Wants(
        choices=asked.n * len(asked.prompts),
        logprobs=asked.sampling.logprobs is not None,
        usage=request.include_usage or not request.stream,
        running_usage=request.usage_in_every_chunk,
        timings=bool(request.timings),
    )


def _noted(events: Iterator[Any], of: Record) -> Iterator[Any]:
    """The events, with what the log wants of them put into the record."""
    for event in events:
        if isinstance(event, Started):
            of.prompt_tokens, of.queue_time = event.prompt_tokens, event.queue_seconds
        elif isinstance(event, Delta):
            of.note_first_token()
        elif isinstance(event, Finished):
            of.completion_tokens = event.completion_tokens
        yield event


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest
