"""What the manager tells a runner when it starts it. Knows neither of them."""

import msgspec

from src.engines.base import EngineOptions


class RunnerSpec(msgspec.Struct, frozen=True, kw_only=True):
    model: str  # its name in the catalog
    engine: str
    socket: str  # path of the Unix socket to bind
    max_requests: int  # running and waiting
    options: EngineOptions
