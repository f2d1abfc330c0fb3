"""Has the client of a request left before the request was begun? So a flood of such requests costs the server little. Knows no route."""

import socket
from typing import Any

from gunicorn.http.body import LengthReader

from src.client.hangup import has_hung_up

_KEEPS_ITS_ANSWER = "IDEMPOTENCY-KEY"  # the answer goes on without its client


def is_abandoned(request: Any, client: socket.socket) -> bool:
    """Whether the whole request (Gunicorn's) has come, and nobody waits for its answer any more. One that breaks off is not whole: its
    client may only have ended its side, and learns that the body is not complete."""
    return has_hung_up(client) and _is_whole(request) and not any(name == _KEEPS_ITS_ANSWER for name, _ in request.headers)


def _is_whole(request: Any) -> bool:
    """As far as that can be said of what came with its head; not of a body in chunks, of which what looks like the last may be a part."""
    reader = request.body.reader
    return isinstance(reader, LengthReader) and request.unreader.buf.getbuffer().nbytes >= reader.length
