"""One generation over HTTP: resolve the model, ask its runner, stream the reply or fold it. Knows no field of a request."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

import flask
from msgspec.structs import replace

from src.api import access, failures
from src.api.record import Record, record
from src.api.render import Renderer, Wants, server_sent_events
from src.api.schema import ChatRequest, CompletionRequest
from src.api.service import client_socket, json_response, service
from src.client import Generation
from src.errors import EngineUnavailable
from src.protocol import Generate, ModelReady

CONNECT_TRIES = 20  # a runner may have been unloaded or have died between the manager's answer and our connection


def reply(request: ChatRequest | CompletionRequest, kind: type[Renderer], prefix: str) -> flask.Response:
    """The response to a request for text. Nothing is committed to before the runner has started on it."""
    of = record()
    ready, asked, generation = _ask(request)
    try:
        of.model = ready.model
        events = _noted(generation, of)
        first = next(event for event in events if event is not None)
        renderer = kind(
            id=f"{prefix}-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=ready.model,
            fingerprint=ready.fingerprint,
            wants=_wants(request, asked),
        )
        chunks = renderer.chunks(_chain(first, events))
        if not request.stream:
            return json_response(renderer.fold(chunks))
    except BaseException:
        generation.close()
        raise
    finally:
        if not request.stream:
            generation.close()
    response = flask.Response(failures.events(server_sent_events(chunks)), mimetype="text/event-stream")
    # Not in the generator: one that was never begun, because its client hung up before the first byte, runs no finally.
    response.call_on_close(generation.close)
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would collect the events otherwise
    return response


def _ask(request: ChatRequest | CompletionRequest) -> tuple[ModelReady, Generate, Generation]:
    deadline, client = service().deadline(), client_socket()
    access.see(request.model)
    for attempt in range(CONNECT_TRIES):
        ready = service().manager.resolve(request.model, deadline, client)
        try:
            asked = replace(request.generate(ready.sampling), key=record().key or "")
            return ready, asked, Generation(ready, asked, deadline, client)
        except EngineUnavailable:
            if attempt == CONNECT_TRIES - 1:
                raise
            time.sleep(0.1)  # till the manager has noticed too
    raise AssertionError("unreachable")


def _wants(request: ChatRequest | CompletionRequest, asked: Generate) -> Wants:
    return Wants(
        choices=asked.n * len(asked.prompts),
        logprobs=asked.sampling.logprobs is not None,
        usage=request.include_usage or not request.stream,
        running_usage=request.usage_in_every_chunk,
        timings=bool(request.timings),
    )


def _noted(events: Generation, of: Record) -> Iterator[Any]:
    """The events, with what the log wants of them put into the record."""
    for event in events:
        if event is not None:
            of.note(event)
        yield event


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest
