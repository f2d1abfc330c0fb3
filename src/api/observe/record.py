"""What is known of one request when it ends, for api_requests.log and the metrics. Never a prompt or an answer."""

import re
import time
import uuid
from collections.abc import Callable
from typing import Any, ClassVar

import flask
import msgspec

from src import logs
from src.api.gateway import client_socket
from src.protocol import Delta, Ended, Finished, Started

CLIENT_CLOSED = 499  # nginx's status of a request whose client left
_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._\-]{1,128}")


class AccessRecord(msgspec.Struct):
    """One line of api_requests.log. Times in seconds since the request came; None where it never got so far."""

    listeners: ClassVar[list[Callable[["AccessRecord"], None]]] = []  # called when a request has ended; must not raise

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
    stream_error_status: int | None = None  # status of the error that ended a stream
    started: float | None = None  # when its Started came from the model's process
    traceparent: str | None = None  # the caller's trace, W3C
    _reasons: list[str] = []  # why choices ended
    _last_token: dict[int, float] = {}  # by choice

    def observe(self, event: Started | Delta | Ended | Finished) -> None:
        """Take in an event of the answer. Called as it comes."""
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
            self._reasons.append(event.reason)
        elif isinstance(event, Finished):
            self.completion_tokens = event.completion_tokens
            self.prefill_time, self.decode_time = event.prefill_seconds, event.decode_seconds

    @property
    def outcome(self) -> int:
        """The status, but of a stream that broke off that of its error, or 499 where its client left."""
        return CLIENT_CLOSED if self.finish_reasons == ["abort"] else self.stream_error_status or self.status

    @property
    def finish_reasons(self) -> list[str]:
        """How the choices ended; ["abort"] where the client left, ["error"] where it broke off, [] where none was begun."""
        if self.started is None or self.completion_tokens is not None:
            return self._reasons
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
        for listener in self.listeners:
            listener(self)


def begin(client_address: Callable[[str, str], str]) -> None:
    """Before a request: its id is the client's, if it is well-formed, else a new one. `client_address`: of the peer's address and
    the header X-Forwarded-For."""
    request = flask.request
    sent_id = request.headers.get("X-Request-ID", "")
    request_id = sent_id if _WELL_FORMED_ID.fullmatch(sent_id) else uuid.uuid4().hex
    client = client_address(request.remote_addr or "", request.headers.get("X-Forwarded-For", ""))
    entry = AccessRecord(id=request_id, route=f"{request.method} {request.path[:200]}", began=time.monotonic(), client=client)
    entry.traceparent = request.headers.get("traceparent")
    if request.url_rule:
        entry.rule = f"{request.method} {request.url_rule.rule}"
    flask.g.record = entry


def end(response: flask.Response) -> flask.Response:
    """After a request's function: name the request to its client; the line is written when the body is through."""
    entry = record()
    response.headers["X-Request-ID"] = entry.id
    entry.status = response.status_code
    client: Any = client_socket()

    def write() -> None:
        if getattr(client, "stalled", False):
            entry.error = "client_stalled"
        elif entry.finish_reasons == ["abort"] and entry.error is None:  # a write failed before anybody saw that the client had left
            entry.error = "client_gone"
        entry.write()

    response.call_on_close(write)
    return response


def record() -> AccessRecord:
    """The record of the request at hand."""
    entry: AccessRecord = flask.g.record
    return entry


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
