"""Each API's JSON to a request of our own, or an error with the path of the field that is wrong. Raw JSON stops here.

A body is a pydantic class; what it asks for is a frozen struct that knows no API: a Chat (conversation.py) for chats, Responses
and Messages, a Completion (completion.py), and for the rest the protocol's own messages.

To add a field of a chat:
- where a body has it: to ChatRequest in chat.py, or to GenerationRequest in generation.py where completions have it too;
  to ResponsesRequest and MessagesRequest where their APIs have it
- to Chat, or to Wishes in text_request.py
- to Generate or ChatPrompt in src/protocol, or to SamplingParams in src/sampling.py, and to the runner, which does it
- to docs/API.md, where a test looks for it
A field with another name in Responses or Messages has a row in their NAMES, so that errors name it as the client knows it.

To add a content type: content.py. To add a route: its body in a file here, a row in routes/openapi.py, a blueprint in app.py.
"""

from collections.abc import Iterator
from typing import Any

from src.api.schema.fields import Strict, validate
from src.api.schema.generation import GenerationRequest
from src.api.schema.limits import DEFAULTS
from src.api.schema.unsupported import UNSUPPORTED, refuse_unsupported, unknown_fields
from src.settings import Limits

__all__ = ["Strict", "parse", "unknown"]


def parse(kind: type[Strict], body: dict[str, Any], limits: Limits = DEFAULTS) -> Any:
    """The body as `kind`. Raises InvalidValue, MissingField, UnsupportedField or UnsupportedContent, with the field's path."""
    parsed = validate(kind, body, limits)
    if issubclass(kind, GenerationRequest):
        refuse_unsupported(body, kind.model_fields)
    return parsed


def unknown(parsed: Strict) -> Iterator[str]:
    """Names of the fields that a parsed body had beyond those its request has."""
    known = frozenset(UNSUPPORTED) if isinstance(parsed, GenerationRequest) else frozenset()
    return unknown_fields(parsed, known)
