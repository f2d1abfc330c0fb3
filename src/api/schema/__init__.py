"""OpenAI's JSON to the protocol's requests, or an error that names the field. Raw JSON stops here."""

from collections.abc import Iterator
from typing import Any

from src.api.schema.admin import KeyRequest, LogLevelRequest
from src.api.schema.anthropic import CountTokensRequest, MessagesRequest
from src.api.schema.bounds import DEFAULTS, with_settings
from src.api.schema.chat import ChatRequest
from src.api.schema.completion import CompletionRequest
from src.api.schema.embedding import EmbeddingRequest
from src.api.schema.fields import Strict, validate
from src.api.schema.generation import GenerationRequest
from src.api.schema.models import DownloadRequest, LoadRequest, SwitchRequest, UnloadRequest
from src.api.schema.responses import ResponsesRequest
from src.api.schema.tokens import DetokenizeRequest, TokenizeChatRequest, TokenizeTextRequest
from src.api.schema.unknown import unknown_fields
from src.api.schema.unsupported import UNSUPPORTED, refuse_unsupported
from src.settings import Limits

__all__ = [
    "ChatRequest",
    "CompletionRequest",
    "CountTokensRequest",
    "DetokenizeRequest",
    "DownloadRequest",
    "EmbeddingRequest",
    "GenerationRequest",
    "KeyRequest",
    "LoadRequest",
    "LogLevelRequest",
    "MessagesRequest",
    "ResponsesRequest",
    "Strict",
    "SwitchRequest",
    "TokenizeChatRequest",
    "TokenizeTextRequest",
    "UnloadRequest",
    "parse",
    "unknown",
    "with_settings",
]


def parse(kind: type[Strict], body: dict[str, Any], limits: Limits = DEFAULTS) -> Any:
    """The body as `kind`. Raises InvalidValue, MissingField or UnsupportedField; param names the field."""
    parsed = validate(kind, body, limits)
    if issubclass(kind, GenerationRequest):
        refuse_unsupported(body, kind.model_fields)
    return parsed


def unknown(parsed: Strict) -> Iterator[str]:
    """Paths of the fields that a parsed body had beyond those its request has."""
    known = frozenset(UNSUPPORTED) if isinstance(parsed, GenerationRequest) else frozenset()
    return unknown_fields(parsed, known)
