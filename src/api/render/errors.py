"""An error as each API writes it: OpenAI's, and Anthropic's under /v1/messages."""

from typing import Any

from src.api.render.base import data_frame
from src.errors import ServiceError

_ANTHROPIC_TYPES = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large",
    429: "rate_limit_error", 500: "api_error", 503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip


def body_for(path: str, error: ServiceError, request_id: str) -> dict[str, Any]:
    """The body of an error response of this route."""
    is_anthropic = path == "/v1/messages" or path.startswith("/v1/messages/")
    return anthropic(error) | {"request_id": request_id} if is_anthropic else dict(error.body())


def anthropic(error: ServiceError) -> dict[str, Any]:
    """A prompt that is too long in Anthropic's words, and nothing behind them: clients look for these, to shorten the conversation."""
    message = error.public_message
    if error.tokens:
        message = f"prompt is too long: {error.tokens[0]} tokens > {error.tokens[1]} maximum"
    kind = _ANTHROPIC_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def openai_event(error: ServiceError) -> bytes:
    """The last event of a stream that failed."""
    return data_frame(error.body())
