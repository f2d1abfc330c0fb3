"""What every API's renderer has: its interface, the response options, and chunks as server-sent events."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from src.errors import ServiceError
from src.protocol import Delta, Ended, Finished, Started

Chunk = dict[str, Any]
Event = Started | Delta | Ended | Finished
DONE = b"data: [DONE]\n\n"
# NEL and the line and paragraph separators. JSON and server-sent events allow them as they are, but many clients look for the end
# of a line with Python's splitlines() or its like, which takes them for one.
SEPARATORS = re.compile(b"\xc2\x85|\xe2\x80[\xa8\xa9]")


class ResponseOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a response contains beside the answer."""

    choices: int = 1
    logprobs: bool = False
    usage: bool = False  # in one more chunk at the end
    running_usage: bool = False  # in every chunk
    timings: bool = False
    custom_tools: tuple[str, ...] = ()  # whose calls have a text in place of arguments


class Rendering(Protocol):
    """Turns a runner's events into one API's JSON: chunks as they come, and one object of all of them."""

    def chunks(self, events: Iterable[Event | None]) -> Iterator[Chunk | None]: ...

    def fold(self, chunks: Iterable[Chunk | None]) -> Chunk: ...

    def heartbeat(self) -> Chunk:
        """What a client takes for a sign of life and for no part of the answer: some count events and overlook comments."""

    def frames(self, chunks: Iterable[Chunk | None], after: int | None = None) -> Iterator[bytes]: ...

    def failed(self, error: ServiceError) -> bytes: ...


def framed(
    chunks: Iterable[Chunk | None],
    frame: Callable[[Chunk], bytes],
    heartbeat: Callable[[], Chunk],
    after: int | None = None,
    last: bytes = b"",
) -> Iterator[bytes]:
    """`heartbeat`: what is sent where time passes without a chunk, unnumbered. `after`: the number of the last event that is not sent,
    for the client has it; None: events have no numbers. `last` is sent after all events."""
    number = 0
    for chunk in chunks:
        if chunk is None:
            yield frame(heartbeat())
            continue
        number += 1
        if after is None:
            yield frame(chunk)
        elif number > after:
            yield b"id: %d\n" % number + frame(chunk)
    if last:
        yield last


def data_frame(chunk: Mapping[str, Any]) -> bytes:
    data = SEPARATORS.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), msgspec.json.encode(chunk))
    return b"data: " + data + b"\n\n"


def named_frame(chunk: Chunk) -> bytes:
    """With the chunk's type as the event's name."""
    name: str = chunk["type"]
    return b"event: " + name.encode() + b"\n" + data_frame(chunk)
