"""One generation over HTTP: resolve the model, ask its runner, stream the reply or fold it. Knows no field of a request."""

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import flask
from msgspec.structs import replace

from src.api import access, failures, kept
from src.api.kept import KEY_HEADER
from src.api.pursuit import Pursuit
from src.api.record import Record, record
from src.api.render import Rendering, Wants
from src.api.replay import Answer
from src.api.schema import ChatRequest, CompletionRequest
from src.api.service import client_socket, json_response, service
from src.protocol import Generate, ModelReady


def reply(request: ChatRequest | CompletionRequest, kind: Callable[..., Rendering], prefix: str) -> flask.Response:
    """The response to a request for text. Nothing is committed to before the runner has started on it."""
    if KEY_HEADER in flask.request.headers:
        return _tell(*kept.answer(request, prefix, _asking(request), _wants), kind)
    of, to = record(), service()
    pursuit = Pursuit(to.manager, to.deadline(request.timeout), client_socket())
    try:
        pursuit.begin(request.model, _asking(request))
        of.model = pursuit.ready.model
        return _respond(
            _noted(iter(pursuit), of),
            pursuit.close,
            lambda: kind(
                id=f"{prefix}{uuid.uuid4().hex}",
                created=int(time.time()),
                model=pursuit.ready.model,
                fingerprint=pursuit.ready.fingerprint,
                wants=_wants(request, pursuit.asked),
            ),
            stream=bool(request.stream),
        )
    except BaseException:
        pursuit.close()
        raise


def reply_again(id: str, kind: Callable[..., Rendering]) -> flask.Response:
    """The response to a question for an answer that is kept."""
    return _tell(*kept.found(id), kind)


def _tell(answer: Answer, is_new: bool, kind: Callable[..., Rendering]) -> flask.Response:
    of = record()
    events = answer.events(service().deadline(), client_socket())

    def renderer() -> Rendering:
        asked, opened = answer.asked, answer.opened
        assert asked
        of.model = asked.model
        return kind(id=opened.id, created=opened.created, model=asked.model, fingerprint=asked.fingerprint, wants=asked.wants)

    # Who gets an answer for the second time has not used its tokens again.
    noted = _noted(events, of) if is_new else events
    return _respond(noted, events.close, renderer, stream=answer.opened.stream, after=kept.last_event_id())


def _respond(
    events: Iterator[Any], close: Callable[[], None], renderer: Callable[[], Rendering], *, stream: bool, after: int | None = None
) -> flask.Response:
    """`renderer` is asked for once the first event is there. `after`: of the event that the client has seen last."""
    try:
        first = next(event for event in events if event is not None)
        rendering = renderer()
        chunks = rendering.chunks(_chain(first, events))
        if not stream:
            return json_response(rendering.fold(chunks))
    except BaseException:
        close()
        raise
    finally:
        if not stream:
            close()
    response = flask.Response(failures.events(rendering.frames(chunks, after), rendering.failed), mimetype="text/event-stream")
    # Not in the generator: one that was never begun, because its client hung up before the first byte, runs no finally.
    response.call_on_close(close)
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would collect the events otherwise
    return response


def _asking(request: ChatRequest | CompletionRequest) -> Callable[[ModelReady], Generate]:
    """What a model is asked for it. Raises what forbids asking at all."""
    access.see(request.model)
    key, most = record().key or "", service().settings.max_completion_tokens or None

    def asking(ready: ModelReady) -> Generate:
        asked = request.generate(ready.sampling)
        return replace(asked, key=key, adapter=ready.adapter, max_tokens=asked.max_tokens or most)

    return asking


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
        if event is not None:
            of.note(event)
        yield event


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest
