"""A reply over HTTP: the events of a runner or of a kept answer, streamed as they come or folded into one object."""

import contextlib
import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Protocol

import flask

from src.api import failures
from src.api.access.visibility import listed
from src.api.gateway import client_socket, event_stream, gateway, json_response
from src.api.generation.idempotency import KEY_HEADER, answer_by_id, kept_answer
from src.api.generation.progress import Event
from src.api.generation.request import ReplyHead, note_ignored, response_options, runner_request
from src.api.generation.resumable import Caller, ResumableGeneration
from src.api.observe.record import record
from src.api.render.base import Rendering
from src.api.schema.text_request import TextRequest
from src.protocol import Started


class Source(Protocol):
    """Where a reply's events come from."""

    stream: bool

    @property
    def after(self) -> int | None:
        """The number of the last event that the client has; None: events have no numbers."""

    def __iter__(self) -> Iterator[Event | None]:
        """None among the events means that none came for a while."""

    def head(self) -> ReplyHead:
        """Known once the first event is there."""

    def close(self) -> None: ...


class LiveAnswer:
    """A runner's answer, which ends with its client's connection."""

    after = None

    def __init__(self, request: TextRequest, prefix: str) -> None:
        """Returns once a runner has the request. `prefix`: of the reply's id. Raises ServiceError, ClientGone."""
        self.stream = bool(request.stream)
        self._request, self._id = request, f"{prefix}{uuid.uuid4().hex}"
        caller = Caller(gateway().manager, gateway().deadline(request.timeout), client_socket())
        for_runner, observe = runner_request(request), record().observe
        self._generation = ResumableGeneration.start(caller, request.model, for_runner, among=listed(), observe=observe)
        record().model = self._generation.ready.model

    def __iter__(self) -> Iterator[Event | None]:
        return iter(self._generation)

    def head(self) -> ReplyHead:
        ready, options = self._generation.ready, response_options(self._request, self._generation.request)
        return ReplyHead(self._id, int(time.time()), ready.model, ready.fingerprint, options)

    def close(self) -> None:
        self._generation.close()


class Reply:
    """Its source is closed once: with the response if it is streamed, else before there is one."""

    def __init__(self, source: Source, kind: Callable[..., Rendering]) -> None:
        """`kind` makes a renderer of the source's head."""
        self._source, self._kind = source, kind

    def response(self) -> flask.Response:
        """Nothing is committed to before the first event. Raises ServiceError, ClientGone."""
        with contextlib.ExitStack() as source:
            source.callback(self._source.close)
            events = iter(self._source)
            first = next(event for event in events if event is not None)
            if isinstance(first, Started):
                note_ignored(first.ignored)
            rendering = self._kind(**self._source.head()._asdict())
            chunks = rendering.chunks(itertools.chain([first], events))
            if not self._source.stream:
                return json_response(rendering.fold(chunks))
            frames = failures.events(rendering.frames(chunks, self._source.after), rendering.failed)
            return event_stream(frames, source.pop_all().close)


def reply(request: TextRequest, kind: Callable[..., Rendering], prefix: str) -> flask.Response:
    """The response to a request for text. `prefix`: of its id."""
    source = kept_answer(request, prefix) if KEY_HEADER in flask.request.headers else LiveAnswer(request, prefix)
    return Reply(source, kind).response()


def reply_again(id: str, kind: Callable[..., Rendering]) -> flask.Response:
    """The response to a request for an answer that is kept."""
    return Reply(answer_by_id(id), kind).response()
