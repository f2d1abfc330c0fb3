"""What is known of one request when it ends, for api_requests.log and the metrics. Never what was asked or answered."""

import re
import time
import uuid
from collections.abc import Callable
from typing import ClassVar

import flask
import msgspec

from src import logs
from src.protocol import Delta, Ended, Finished, Started

CLIENT_CLOSED = 499  # nginx's status of a request whose client left
_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._\-]{1,128}")


class Record(msgspec.Struct):
    """One line of api_requests.log. Times in seconds since the request came; None where it never got so far."""

    watchers: ClassVar[list[Callable[["Record"], None]]] = []  # told when a request has ended; must not raise

    id: str
    route: str
    began: float
    rule: str = "unmatched"  # method and rule of the route: one of those there are, whatever was asked for
    model: str | None = None
    status: int = 0
    error: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
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
        return ["error"] if self.error and self.error != "client_gone" else ["abort"]

    def write(self) -> None:
        logs.requests.info(
            "id={} key=- route={!r} model={} status={} error={} tokens_in={} tokens_out={} queue_ms={} ttft_ms={} total_ms={}",
            self.id, self.route, self.model or "-", self.status, self.error or "-",
            _or_dash(self.prompt_tokens), _or_dash(self.completion_tokens),
            _milliseconds(self.queue_time), _milliseconds(self.first_token), _milliseconds(time.monotonic() - self.began),
        )  # fmt: skip
        for tell in self.watchers:
            tell(self)


def begin() -> None:
    """Before a request: its id is the client's, if it is well-formed, else a new one."""
    given = flask.request.headers.get("X-Request-ID", "")
    request_id = given if _WELL_FORMED_ID.fullmatch(given) else uuid.uuid4().hex
    method, rule = flask.request.method, flask.request.url_rule
    of = flask.g.record = Record(id=request_id, route=f"{method} {flask.request.path[:200]}", began=time.monotonic())
    of.traceparent = flask.request.headers.get("traceparent")
    if rule:
        of.rule = f"{method} {rule.rule}"


def end(response: flask.Response) -> flask.Response:
    """After a request's function: name the request to its client; the line is written when the body is through."""
    of = record()
    response.headers["X-Request-ID"] = of.id
    of.status = response.status_code
    response.call_on_close(of.write)
    return response


def record() -> Record:
    """The record of the request at hand."""
    of: Record = flask.g.record
    return of


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f}"


def _or_dash(number: int | None) -> str:
    return "-" if number is None else str(number)
