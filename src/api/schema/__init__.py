"""OpenAI's JSON to the protocol's requests, or an error that names the field. Raw JSON stops here."""

from typing import Any

from src.api.schema.admin import KeyRequest, LogLevelRequest
from src.api.schema.chat import ChatRequest
from src.api.schema.completion import CompletionRequest
from src.api.schema.fields import Strict, validate
from src.api.schema.generation import GenerationRequest
from src.api.schema.models import DownloadRequest, LoadRequest, SwitchRequest, UnloadRequest
from src.api.schema.unsupported import refuse_unsupported

__all__ = [
    "ChatRequest",
    "CompletionRequest",
    "DownloadRequest",
    "GenerationRequest",
    "KeyRequest",
    "LoadRequest",
    "LogLevelRequest",
    "SwitchRequest",
    "UnloadRequest",
    "parse",
]


def parse(kind: type[Strict], body: dict[str, Any]) -> Any:
    """The body as `kind`. Raises InvalidValue, MissingField or UnsupportedField; param names the field."""
    parsed = validate(kind, body)
    if issubclass(kind, GenerationRequest):
        refuse_unsupported(body, kind.model_fields)
    return parsed
