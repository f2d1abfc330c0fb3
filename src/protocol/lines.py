"""Messages as lines of JSON, and the one message that both sockets know. Knows no request.

Closing the connection is the cancel.
"""

import math
from typing import Any

import msgspec

from src.errors import ServiceError

MAX_LINE_BYTES = 64 * 2**20  # a body of 8 MiB whose every character is escaped still fits
LONGEST_RETRY_AFTER = 120  # seconds; SDKs do not retry by themselves when they are asked to wait longer


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="kind", omit_defaults=True, forbid_unknown_fields=True):
    """Base of everything that crosses a socket; the tag is the class's name."""


class Failed(Message, frozen=True, kw_only=True):
    """Any ServiceError, on its way to a client."""

    status: int
    type: str
    code: str | None
    message: str  # with errors.FIELD where it names the field
    path: tuple[str | int, ...] = ()  # of the field
    retry_after: int | None = None
    tokens: tuple[int, int] | None = None  # of a prompt that is too long, and that it may have

    @classmethod
    def of(cls, error: ServiceError) -> "Failed":
        return cls(
            status=error.status,
            type=error.type,
            code=error.code,
            message=error.template,
            path=error.path,
            retry_after=error.retry_after,
            tokens=error.tokens,
        )

    def error(self) -> ServiceError:
        """The error as it was raised on the other side, but for its class."""
        error = ServiceError(self.message, self.path, self.retry_after)
        error.status, error.type, error.code, error.tokens = self.status, self.type, self.code, self.tokens
        return error


_encoder = msgspec.json.Encoder()
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


class ProtocolError(Exception):
    """A line that is not a message of the kind expected. Close the connection; nothing else on it can be trusted."""


def retry_after_seconds(seconds: float) -> int:
    """An estimate as a Retry-After header has it: whole seconds, at least 1, at most LONGEST_RETRY_AFTER."""
    return max(1, min(LONGEST_RETRY_AFTER, math.ceil(seconds)))


def encode(message: Message) -> bytes:
    """One message as one line."""
    return _encoder.encode(message) + b"\n"


def decode(line: bytes, kind: Any) -> Any:
    """The message in a line. `kind` is one of the unions above. Raises ProtocolError."""
    if not line.endswith(b"\n"):
        raise ProtocolError("the connection ended in the middle of a message")
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        # RecursionError is not a MsgspecError: a line of 100,000 brackets raises it.
        raise ProtocolError(f"not a message of this protocol: {error}") from error
