"""What is known of one request when it ends, for api_requests.log. Never what was asked or answered."""

import re
import time
import uuid

import flask
import msgspec

from src import logs
from src.api.service import service

_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._\-]{1,128}")


class Record(msgspec.Struct):
    """One line of api_requests.log. Times in seconds since the request came; None where it never got so far."""

    id: str
    route: str
    began: float
    key: str | None = None  # its name
    client: str | None = None  # address
    model: str | None = None
    status: int = 0
    error: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    drawn_tokens: int = 0  # of an answer that has not ended
    queue_time: float | None = None
    first_token: float | None = None

    def note_first_token(self) -> None:
        if self.first_token is None:
            self.first_token = time.monotonic() - self.began

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


def begin() -> None:
    """Before a request: its id is the client's, if it is well-formed, else a new one."""
    given = flask.request.headers.get("X-Request-ID", "")
    request_id = given if _WELL_FORMED_ID.fullmatch(given) else uuid.uuid4().hex
    client = service().proxies.client(flask.request.remote_addr or "", flask.request.headers.get("X-Forwarded-For", ""))
    route = f"{flask.request.method} {flask.request.path[:200]}"
    flask.g.record = Record(id=request_id, route=route, began=time.monotonic(), client=client)


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


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
