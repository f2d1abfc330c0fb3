"""Bodies of the routes that change keys and the log level."""

from typing import Annotated, Literal

from pydantic import Field

from src.api.schema.fields import INT32_MAX, INT64_MAX, Strict
from src.api.schema.limits import AtMost

Limit = Annotated[int, Field(ge=0, le=INT32_MAX)]


class LogLevelRequest(Strict):
    level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"]


class KeyRequest(Strict):
    """A new API key. `expires` in Unix seconds; src/keys.py says what each field means, and checks the name."""

    name: str
    scopes: Annotated[list[Literal["inference", "monitor", "admin"]], AtMost(10)] | None = None
    models: Annotated[list[str], AtMost(1000)] | None = None
    expires: Annotated[int, Field(ge=0, le=INT64_MAX)] | None = None
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    concurrent: Limit | None = None
