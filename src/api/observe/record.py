"""What is known of one request when it ends, for api_requests.log and the metrics. Never what was asked or answered."""

import re
import time
import uuid
from collections.abc import Callable
from typing import Any, ClassVar

import flask
import msgspec

from src import logs
from src.api.service import client_socket, service
from src.protocol import Delta, Ended, Finished, Started

CLIENT_CLOSED = 499  # nginx's status of a request whose client left
_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._\-]{1,128}")


class Record(msgspec.Struct):
    """One line of api_requests.log. Times in seconds since the request came; None where it never got so far."""

    watchers: ClassVar[list[Callable[["Record"], None]]] = []  # told when a request has ended; must not raise

    id: str
    route: str
    began: float
    key: str | None = None  # its name
    client: str | None = None  # address
    rule: str = "unmatched"  # method and rule of the route: one of those there are, whatever was asked for
    model: str | None = None
    status: int = 0
    error: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    drawn_tokens: int = 0  # of an answer that has not ended
    queue_time: float | None = None
    first_token: float | None = None
    prefill_time: float | None = None
    decode_time: float | None = None
    token_gaps: list[float] = []
    broken_off: int | None = None  # status of the error that ended a stream
    started: float | None = None  # when the model's process told that it has begun
    traceparent: str | None = None  # the caller's trace, W3C
    _ended: list[str] = []  # why, by choice
    _last_token: dict[int, float] = {}  # by choice

    def note(self, event: Started | Delta | Ended | Finished) -> None:
        """What an event of the answer tells. Called as it comes."""
        now = time.monotonic() - self.began
        if isinstance(event, Started):
            self.prompt_tokens, self.queue_time, self.started = event.prompt_tokens, event.queue_seconds, now
        elif isinstance(event, Delta) and event.tokens:  # an echoed prompt has none
            self.first_token = self.first_token or now
            if before := self._last_token.get(event.index):
                self.token_gaps.append(round(now - before, 6))
            self._last_token[event.index] = now
            self.drawn_tokens += len(event.tokens)
        elif isinstance(event, Ended):
            self._ended.append(event.reason)
        elif isinstance(event, Finished):
            self.completion_tokens = event.completion_tokens
            self.prefill_time, self.decode_time = event.prefill_seconds, event.decode_seconds

    @property
    def outcome(self) -> int:
        """The status, but of a stream that broke off that of its error, or 499 where its client left."""
        return CLIENT_CLOSED if self.endings == ["abort"] else self.broken_off or self.status

    @property
    def endings(self) -> list[str]:
        """How the choices ended; ["abort"] where the client left, ["error"] where it broke off, [] where none was begun."""
        if self.started is None or self.completion_tokens is not None:
            return self._ended
        return ["error"] if self.error and self.error not in ("client_gone", "client_stalled") else ["abort"]

    @property
    def tokens_used(self) -> int:
        """Also by an answer that broke off."""
        return (self.prompt_tokens or 0) + (self.drawn_tokens if self.completion_tokens is None else self.completion_tokens)

    def write(self) -> None:
        logs.write(
            logs.requests,
            id=self.id,
            key=self.key,
            client=self.client,
            route=self.route,
            model=self.model,
            status=self.status,
            error=self.error,
            tokens_in=self.prompt_tokens,
            tokens_out=self.completion_tokens,
            queue_ms=_milliseconds(self.queue_time),
            ttft_ms=_milliseconds(self.first_token),
            total_ms=_milliseconds(time.monotonic() - self.began),
        )
        for tell in self.watchers:
            tell(self)


def begin() -> None:
    """Before a request: its id is the client's, if it is well-formed, else a new one."""
    given = flask.request.headers.get("X-Request-ID", "")
    request_id = given if _WELL_FORMED_ID.fullmatch(given) else uuid.uuid4().hex
    method, rule = flask.request.method, flask.request.url_rule
    client = service().proxies.client(flask.request.remote_addr or "", flask.request.headers.get("X-Forwarded-For", ""))
    route = f"{method} {flask.request.path[:200]}"
    of = flask.g.record = Record(id=request_id, route=route, began=time.monotonic(), client=client)
    of.traceparent = flask.request.headers.get("traceparent")
    if rule:
        of.rule = f"{method} {rule.rule}"


def end(response: flask.Response) -> flask.Response:
    """After a request's function: name the request to its client; the line is written when the body is through."""
    of = record()
    response.headers["X-Request-ID"] = of.id
    of.status = response.status_code
    client: Any = client_socket()

    def write() -> None:
        if getattr(client, "stalled", False):
            of.error = "client_stalled"
        elif of.endings == ["abort"] and of.error is None:  # a write failed before anybody saw that the client had left
            of.error = "client_gone"
        of.write()

    response.call_on_close(write)
    return response


def record() -> Record:
    """The record of the request at hand."""
    of: Record = flask.g.record
    return of


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
