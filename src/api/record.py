"""What is known of one request when it ends, for api_requests.log. Never what was asked or answered."""

import re
import time
import uuid

import flask
import msgspec

from src import logs

_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._\-]{1,128}")


class Record(msgspec.Struct):
    """One line of api_requests.log. Times in seconds since the request came; None where it never got so far."""

    id: str
    route: str
    began: float
    model: str | None = None
    status: int = 0
    error: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    queue_time: float | None = None
    first_token: float | None = None

    def note_first_token(self) -> None:
        if self.first_token is None:
            self.first_token = time.monotonic() - self.began

    def write(self) -> None:
        logs.requests.info(
            "id={} key=- route={!r} model={} status={} error={} tokens_in={} tokens_out={} queue_ms={} ttft_ms={} total_ms={}",
            self.id, self.route, self.model or "-", self.status, self.error or "-",
            _or_dash(self.prompt_tokens), _or_dash(self.completion_tokens),
            _milliseconds(self.queue_time), _milliseconds(self.first_token), _milliseconds(time.monotonic() - self.began),
        )  # fmt: skip


def begin() -> None:
    """Before a request: its id is the client's, if it is well-formed, else a new one."""
    given = flask.request.headers.get("X-Request-ID", "")
    request_id = given if _WELL_FORMED_ID.fullmatch(given) else uuid.uuid4().hex
    flask.g.record = Record(id=request_id, route=f"{flask.request.method} {flask.request.path[:200]}", began=time.monotonic())


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
