"""What the manager tells a runner when it starts it."""

from typing import Any

import msgspec

# Exit statuses of a runner that ends by itself.
ENGINE_DEAD = 70  # EX_SOFTWARE of sysexits.h
NO_NUMBERS = 71  # too many requests in a row ended with InvalidOutput


class RunnerSpec(msgspec.Struct, frozen=True, kw_only=True):
    model: str  # its name in the catalog
    engine: str
    socket: str  # path of the Unix socket to bind
    max_requests: int  # running and waiting
    chat_template: str | None = None  # path of a Jinja file, in place of the model's own template
    tool_format: str | None = None  # how the model writes tool calls, where its template does not tell
    matryoshka: list[int] | None = None  # lengths its embeddings may be cut to; []: any; None: they may not
    options: dict[str, Any]  # fields of the engine's own options, as the registry has their type
