"""What the manager tells a runner when it starts it. Knows neither of them."""

import msgspec

from src.engines.base import EngineOptions


class RunnerSpec(msgspec.Struct, frozen=True, kw_only=True):
    model: str  # its name in the catalog
    engine: str
    socket: str  # path of the Unix socket to bind
    max_requests: int  # running and waiting
    chat_template: str | None = None  # path of a Jinja file, in place of the model's own template
    tool_format: str | None = None  # how the model writes tool calls, where its template does not tell
    matryoshka: list[int] | None = None  # lengths its embeddings may be cut to; []: any; None: they may not
    options: EngineOptions
