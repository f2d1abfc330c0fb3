"""Inputs that are embedded between the engine's steps, request by request in turns. Knows no text; for the engine thread alone."""

from collections import deque
from collections.abc import Generator

import msgspec

from src.engines.base import Engine
from src.errors import EngineError


class Vector(msgspec.Struct, frozen=True, kw_only=True):
    """What a piece of work brought to its end: the next input's vector, or why there is none."""

    request_id: int
    values: list[float] = []
    error: EngineError | None = None


class Turns:
    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Generator[list[float] | None, None, None]]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, request_id: int, engine: Engine, inputs: list[list[int]]) -> None:
        self._waiting.append((request_id, engine.embed(inputs)))

    def cancel(self, request_id: int) -> None:
        """Forget a request. Unknown ids are ignored."""
        for turn in [turn for turn in self._waiting if turn[0] == request_id]:
            self._waiting.remove(turn)
            turn[1].close()

    def advance(self) -> Vector | None:
        """Do one piece of work. After a vector the next request has its turn."""
        if not self._waiting:
            return None
        request_id, vectors = self._waiting[0]
        try:
            values = next(vectors)
        except (StopIteration, EngineError) as ended:
            self._waiting.popleft()
            return Vector(request_id=request_id, error=ended) if isinstance(ended, EngineError) else None
        if values is None:
            return None
        self._waiting.rotate(-1)
        return Vector(request_id=request_id, values=values)
