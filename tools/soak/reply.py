"""What came back, as a client reads it: texts, calls, vectors, or an error. Judges nothing."""

from collections.abc import Iterator
from typing import Any

import h11
import msgspec

from tools.bench.client import Exchange
from tools.bench.recording import read_body
from tools.soak.reference import Place


class BrokenOff(Exception):
    """The connection ended before the answer did."""


class Reply(msgspec.Struct):
    """A whole answer. Lists are by choice."""

    status: int
    id: str = ""
    texts: dict[int, str] = {}
    reasons: dict[int, str | None] = {}
    calls: dict[int, tuple[str, str]] = {}  # of the first choice: name and arguments
    places: dict[int, list[Place]] = {}
    vector: list[float] = []
    error: str | None = None  # its code; "" where it is none of OpenAI's form
    message: str = ""
    last_event: int = 0
    events: int = 0


def read(exchange: Exchange, complete: bool = True) -> Reply:
    """Raises BrokenOff unless the answer is complete, or need not be."""
    try:
        status, body = read_body(exchange.pieces, complete)
    except h11.RemoteProtocolError as error:
        raise BrokenOff(exchange.failure or str(error)) from error
    if complete and (exchange.failure or not status):
        raise BrokenOff(exchange.failure or "no answer")
    reply = Reply(status=status, texts={}, reasons={}, calls={}, places={}, vector=[])
    try:
        if body.lstrip().startswith((b"{", b"[")):
            _take(reply, msgspec.json.decode(body))
        else:
            _take_stream(reply, body, complete)
    except (msgspec.DecodeError, LookupError, TypeError, AttributeError):
        reply.error = ""
    if status >= 400 and reply.error is None:
        reply.error = ""
    return reply


def _take_stream(reply: Reply, body: bytes, complete: bool) -> None:
    whole, _, _ = body.rpartition(b"\n\n")
    for event in _events(whole):
        for name, value in event:
            if name == "id":
                reply.last_event = int(value)
            elif name == "data" and value.startswith("{"):
                reply.events += 1
                _take(reply, msgspec.json.decode(value))
    if complete and reply.status == 200 and reply.error is None and b"data: [DONE]" not in body:
        raise BrokenOff("a stream without [DONE] and without an error")


def _events(body: bytes) -> Iterator[list[tuple[str, str]]]:
    for event in body.decode().split("\n\n"):
        fields = [line.partition(":") for line in event.split("\n")]
        yield [(name, value.strip()) for name, _, value in fields]


def _take(reply: Reply, told: dict[str, Any]) -> None:
    """A chunk, or a plain answer: both are added to what there is."""
    if error := told.get("error"):
        reply.error = str(error["code"]) if {"message", "type", "param", "code"} <= error.keys() else ""
        reply.message = str(error.get("message"))
        return
    reply.id = told.get("id") or reply.id
    if told.get("object") == "list" and told["data"] and "embedding" in told["data"][0]:
        reply.vector = told["data"][0]["embedding"]
    for choice in told.get("choices", []):
        at = choice["index"]
        said = choice.get("delta") or choice.get("message") or {}
        reply.texts[at] = reply.texts.get(at, "") + (said.get("content") or choice.get("text") or "")
        reply.reasons[at] = choice.get("finish_reason") or reply.reasons.get(at)
        for number, call in enumerate(said.get("tool_calls") or []):
            name, arguments = reply.calls.get(call.get("index", number), ("", ""))
            function = call["function"]
            reply.calls[call.get("index", number)] = (name + (function.get("name") or ""), arguments + (function.get("arguments") or ""))
        if logprobs := choice.get("logprobs"):
            reply.places.setdefault(at, []).extend(_places(logprobs))


def _places(logprobs: dict[str, Any]) -> Iterator[Place]:
    if "content" in logprobs:
        for place in logprobs["content"]:
            yield Place(place["token"], place["logprob"], [(other["token"], other["logprob"]) for other in place["top_logprobs"]])
        return
    for token, logprob, others in zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
        yield Place(token, logprob, sorted(others.items(), key=lambda pair: -pair[1]))
