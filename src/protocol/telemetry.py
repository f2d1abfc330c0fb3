"""What a gateway worker reports to the manager for the metrics, over one connection that it keeps. Nothing comes back."""

from src.protocol.lines import Message


class TokenGaps(Message, frozen=True, kw_only=True):
    """Seconds between tokens of answers, as they left the server."""

    model: str
    seconds: list[float]


class RequestEnded(Message, frozen=True, kw_only=True):
    """One request, however it ended. Times in seconds; None where it never got so far."""

    route: str  # method and rule, one of those there are
    status: int  # a stream that broke off: its error's; 499: its client left
    seconds: float
    model: str | None = None
    endings: list[str] = []  # of its choices: stop, length, tool_calls; or abort or error; none where no answer was begun
    prompt_tokens: int | None = None
    completion_tokens: int | None = None  # only of an answer that came to its own end
    queue_seconds: float | None = None
    first_token_seconds: float | None = None
    prefill_seconds: float | None = None
    decode_seconds: float | None = None


Telemetry = TokenGaps | RequestEnded
