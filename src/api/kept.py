"""Idempotency-Key and Last-Event-ID: from a request's headers to an answer that is kept. Knows no event."""

import re
from collections.abc import Callable

import flask

from src.api.progress import Progress
from src.api.pursuit import Pursuit
from src.api.record import Record, record
from src.api.render import Wants
from src.api.replay import Answer, Asked, digest
from src.api.schema import ChatRequest, CompletionRequest
from src.api.service import Service, service
from src.errors import InvalidValue
from src.protocol import Generate, ModelReady

KEY_HEADER = "Idempotency-Key"
EVENT_HEADER = "Last-Event-ID"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")

Request = ChatRequest | CompletionRequest


def answer(
    request: Request, prefix: str, asking: Callable[[ModelReady], Generate], wants: Callable[[Request, Generate], Wants]
) -> tuple[Answer, bool]:
    """The answer to a request with an Idempotency-Key, and whether it is a new one. Raises InvalidValue, IdempotencyKeyReused."""
    key = flask.request.headers[KEY_HEADER]
    if not _KEY.fullmatch(key):
        raise InvalidValue(f"{KEY_HEADER} has to be 1 to 255 printable ASCII characters without spaces.", KEY_HEADER)
    to, route = service(), flask.request.path
    asked = digest(route, request.model_dump(mode="json"))
    log, opened, is_new = to.kept.open(_owner(record()), key, route, asked, prefix, bool(request.stream))

    def begin() -> tuple[Pursuit, Asked]:
        pursuit = _pursuit(to, request.timeout).begin(request.model, asking)
        ready = pursuit.ready
        return pursuit, Asked(model=ready.model, fingerprint=ready.fingerprint, request=pursuit.asked, wants=wants(request, pursuit.asked))

    return Answer(log, opened, begin, _going_on(to), to.settings.resume_seconds), is_new


def found(id: str) -> tuple[Answer, bool]:
    """The answer with this id, which is not new. Raises NotFound."""
    to = service()
    log, opened = to.kept.find(id, _owner(record()), flask.request.path.rpartition("/")[0])
    return Answer(log, opened, None, _going_on(to), to.settings.resume_seconds), False


def last_event_id() -> int:
    """0 where the client has seen none. Raises InvalidValue."""
    given = flask.request.headers.get(EVENT_HEADER, "")
    if given and not re.fullmatch(r"[0-9]{1,12}", given):
        raise InvalidValue(f"{EVENT_HEADER} has to be an id of one of the answer's events.", EVENT_HEADER)
    return int(given or 0)


def _owner(of: Record) -> str:
    """The name of the API key that asks: nobody finds another's answers."""
    return of.key or ""


def _pursuit(to: Service, timeout: float | None = None) -> Pursuit:
    return Pursuit(to.manager, to.deadline(timeout), client=None)


def _going_on(to: Service) -> Callable[[Asked, Progress], Pursuit]:
    return lambda asked, progress: _pursuit(to).go_on_from(asked.model, asked.fingerprint, progress)
