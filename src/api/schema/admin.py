"""Bodies of the routes that change keys and the log level."""

from typing import Annotated, Literal

from pydantic import Field

from src.api.schema.fields import INT32_MAX, INT64_MAX, Strict

Limit = Annotated[int, Field(ge=0, le=INT32_MAX)]


class LogLevelRequest(Strict):
    level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"]


class KeyRequest(Strict):
    """A new API key. `expires` in Unix seconds; src/keys.py says what each field means, and checks the name."""

    name: str
    scopes: list[Literal["inference", "monitor", "admin"]] | None = None
    models: Annotated[list[str], Field(max_length=1000)] | None = None
    expires: Annotated[int, Field(ge=0, le=INT64_MAX)] | None = None
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    concurrent: Limit | None = None
