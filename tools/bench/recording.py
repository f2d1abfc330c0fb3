"""What was recorded of an answer, read after the workload is over: HTTP, server-sent events, OpenAI's chunks. Measures nothing."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import h11
import msgspec

if TYPE_CHECKING:
    from tools.bench.client import Exchange

Pieces = Sequence[tuple[float, bytes]]  # (seconds, bytes) as they came from the socket


class Answer(msgspec.Struct, kw_only=True):
    """One request as its reader saw it. Times in seconds since the round began."""

    role: str = ""
    asked: int
    sent: float
    ended: float
    arrivals: list[float] = []  # when text came; what came together counts once
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0  # as delivered, by the server's own count
    cut: float | None = None  # when the reader hung up
    error: str | None = None
    fingerprint: str | None = None

    @property
    def good(self) -> bool:
        return self.error is None

    @property
    def first_token(self) -> float | None:
        """Seconds from sending to the first text."""
        return self.arrivals[0] - self.sent if self.arrivals else None

    def gaps(self) -> list[float]:
        """Seconds between arrivals of text."""
        return [later - earlier for earlier, later in pairwise(self.arrivals)]

    def gaps_within(self, since: float, until: float) -> list[float]:
        """Those that lie between the two times."""
        return [later - earlier for earlier, later in pairwise(self.arrivals) if since <= earlier and later <= until]

    def gaps_touching(self, since: float, until: float) -> list[float]:
        """Those of which any part lies between the two times: a stream that stands still all that while has one."""
        return [later - earlier for earlier, later in pairwise(self.arrivals) if later > since and earlier < until]


def read(exchange: "Exchange", began: float) -> tuple[Answer, str]:
    """The answer and its text. Whatever is not a complete answer of the tokens asked for carries an error."""
    last = exchange.pieces[-1][0] if exchange.pieces else exchange.sent
    answer = Answer(role=exchange.role, asked=exchange.asked, sent=exchange.sent - began, ended=last - began, error=exchange.failure)
    if exchange.cut is not None:
        answer.cut = exchange.cut - began
    text: list[str] = []
    try:
        for at, event in _events(exchange.pieces, complete=exchange.cut is None):
            _note(answer, at - began, event, text)
    except _Refused as refused:
        answer.error = answer.error or str(refused)
    except (h11.RemoteProtocolError, msgspec.DecodeError) as error:
        answer.error = answer.error or f"{type(error).__name__}: {error}"
    if answer.good and answer.cut is None and answer.completion_tokens != answer.asked:
        answer.error = f"{answer.completion_tokens} of {answer.asked} tokens"
    return answer, "".join(text)


def read_body(pieces: Pieces, complete: bool = True) -> tuple[int, bytes]:
    """Status and body of a complete answer, or of what has come of one. Raises h11.RemoteProtocolError."""
    status, parts = 0, []
    for _, event in _http(pieces, complete):
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            parts.append(bytes(event.data))
    return status, b"".join(parts)


class _Refused(Exception):
    """The server answered with an error instead of a stream."""


def _http(pieces: Pieces, complete: bool) -> Iterator[tuple[float, h11.Event]]:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "any")]))
    connection.send(h11.EndOfMessage())
    closing = [(pieces[-1][0], b"")] if complete and pieces else []
    for at, piece in [*pieces, *closing]:
        connection.receive_data(piece)
        while not isinstance(event := connection.next_event(), type) and not isinstance(event, h11.ConnectionClosed):
            yield at, event
            if isinstance(event, h11.EndOfMessage):
                return


def _events(pieces: Pieces, complete: bool) -> Iterator[tuple[float, Any]]:
    """When each server-sent event was there, and what it says."""
    status, buffer = 0, b""
    for at, event in _http(pieces, complete):
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            buffer += bytes(event.data)
            if status == 200:
                *lines, buffer = buffer.split(b"\n")
                yield from ((at, msgspec.json.decode(line[6:])) for line in lines if line.startswith(b"data: {"))
    if not pieces and complete:
        raise _Refused("no answer: the server closed the connection")
    if status not in (0, 200):
        raise _Refused(f"{status}: {_reason(buffer)}")


def _reason(body: bytes) -> str:
    """OpenAI's error message, or the beginning of whatever came instead."""
    try:
        return str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.DecodeError, LookupError, TypeError):
        return body[:300].decode(errors="replace")


def _note(answer: Answer, at: float, chunk: dict[str, Any], text: list[str]) -> None:
    if error := chunk.get("error"):
        raise _Refused(str(error.get("message", error) if isinstance(error, dict) else error))
    answer.fingerprint = chunk.get("system_fingerprint") or answer.fingerprint
    if usage := chunk.get("usage"):
        answer.prompt_tokens = usage["prompt_tokens"]
        answer.completion_tokens = usage["completion_tokens"]
        answer.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    delta = chunk["choices"][0].get("delta") or {} if chunk.get("choices") else {}
    if content := delta.get("content") or delta.get("reasoning_content"):
        text.append(content)
        if not answer.arrivals or answer.arrivals[-1] != at:
            answer.arrivals.append(at)
