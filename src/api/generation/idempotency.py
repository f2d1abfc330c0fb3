"""Idempotency-Key and Last-Event-ID: from a request's headers to an answer that is kept."""

import contextlib
import re
from collections.abc import Callable, Iterator

import flask

from src.api.access.quotas import held, quotas
from src.api.access.scopes import owner
from src.api.access.visibility import listed
from src.api.gateway import Gateway, client_socket, gateway
from src.api.generation.progress import Event, Progress
from src.api.generation.replay import Answer, LogRequest, Recipe, canonical, digest, store
from src.api.generation.request import ReplyHead, response_options, runner_request
from src.api.generation.resumable import Caller, ResumableGeneration
from src.api.observe.record import record
from src.api.schema.text_request import TextRequest
from src.errors import InvalidValue

KEY_HEADER = "Idempotency-Key"
EVENT_HEADER = "Last-Event-ID"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class StoredAnswer:
    """A kept answer, as the source of a reply."""

    def __init__(self, answer: Answer, after: int, observe: Callable[[Event], None] = lambda event: None) -> None:
        """`after`: see Reply; `observe` is called with each event."""
        self.stream, self.after = answer.header.stream, after
        self._answer, self._record = answer, record()
        self._events = answer.events(gateway().deadline(), client_socket(), observe)

    def __iter__(self) -> Iterator[Event | None]:
        return self._events

    def head(self) -> ReplyHead:
        header, request = self._answer.header, self._answer.request
        assert request
        self._record.model = request.model
        return ReplyHead(header.id, header.created, request.model, request.fingerprint, request.wants)

    def close(self) -> None:
        """The answer goes on without this client."""
        self._events.close()


def kept_answer(request: TextRequest, prefix: str) -> StoredAnswer:
    """The answer to a request with an Idempotency-Key. Raises InvalidValue, IdempotencyKeyReused."""
    key = flask.request.headers[KEY_HEADER]
    if not _KEY.fullmatch(key):
        raise InvalidValue(f"{KEY_HEADER} must be 1 to 255 printable ASCII characters without spaces.", KEY_HEADER)
    after, route = _last_event_id(), flask.request.path
    body = canonical(request.model_dump(mode="json"))
    log, header, is_new = store().open(owner(), key, route, digest(route, body), prefix, bool(request.stream), len(body))
    with contextlib.ExitStack() as refusal:
        refusal.callback(log.close)
        if is_new:
            refusal.callback(log.remove)
            quotas().admit_new()  # where it was kept when the request came, and is no more
        app, for_runner, among = gateway(), runner_request(request), listed()
        refusal.pop_all()

    def begin() -> tuple[ResumableGeneration, LogRequest]:
        generation = ResumableGeneration.start(_caller(app, request.timeout), request.model, for_runner, among=among)
        ready, wants = generation.ready, response_options(request, generation.request)
        return generation, LogRequest(model=ready.model, fingerprint=ready.fingerprint, request=generation.request, wants=wants)

    answer = Answer(log, header, _recipe(begin))
    # Whoever gets an answer for the second time has not used its tokens again.
    return StoredAnswer(answer, after, record().observe) if is_new else StoredAnswer(answer, after)


def is_kept() -> bool:
    """Whether the request at hand repeats one whose answer is kept, or comes still."""
    key = flask.request.headers.get(KEY_HEADER, "")
    return bool(_KEY.fullmatch(key)) and store().has(owner(), key, flask.request.path)


def answer_by_id(id: str) -> StoredAnswer:
    """The kept answer with this id. Raises NotFound, InvalidValue."""
    after = _last_event_id()
    log, header = store().find(id, owner(), flask.request.path.rpartition("/")[0])
    return StoredAnswer(Answer(log, header, _recipe(None)), after)


def _last_event_id() -> int:
    """0 where the client has seen none. Raises InvalidValue."""
    value = flask.request.headers.get(EVENT_HEADER, "")
    if value and not re.fullmatch(r"[0-9]{1,12}", value):
        raise InvalidValue(f"{EVENT_HEADER} must be an id of one of the answer's events.", EVENT_HEADER)
    return int(value or 0)


def _recipe(begin: Callable[[], tuple[ResumableGeneration, LogRequest]] | None) -> Recipe:
    app = gateway()

    def resume(request: LogRequest, progress: Progress) -> ResumableGeneration:
        return ResumableGeneration.resume(_caller(app), request.model, request.fingerprint, progress)

    ticket = held()
    settings, hold = app.settings, ticket.hold if ticket else _holds_nothing
    return Recipe(begin, resume, settings.idempotency_max_bytes // 2, settings.resume_seconds, hold)


def _holds_nothing() -> Callable[[int], None]:
    return lambda tokens: None


def _caller(app: Gateway, timeout: float | None = None) -> Caller:
    """Without a client: an answer that is kept does not end with the connection of the client that asked first."""
    return Caller(app.manager, app.deadline(timeout), client=None)
