"""Inputs that are embedded between the engine's steps: keys take turns, and the requests of a key. Knows no text; for the engine
thread alone."""

from collections import deque
from collections.abc import Generator

import msgspec

from src.engines.base import Engine
from src.engines.finite import check_vector
from src.errors import EngineError


class Vector(msgspec.Struct, frozen=True, kw_only=True):
    """What a piece of work brought to its end: the next input's vector, or why there is none."""

    request_id: int
    values: list[float] = []
    error: EngineError | None = None


class _Request(msgspec.Struct, frozen=True):
    id: int
    vectors: Generator[list[float] | None, None, None]


class EmbeddingQueue:
    def __init__(self) -> None:
        self._lines: dict[str, deque[_Request]] = {}  # by key, the next one first

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def add(self, request_id: int, engine: Engine, inputs: list[list[int]], key: str) -> None:
        self._lines.setdefault(key, deque()).append(_Request(request_id, engine.embed(inputs)))

    def cancel(self, request_id: int) -> None:
        """Forget a request. Unknown ids are ignored."""
        for key, line in list(self._lines.items()):
            for request in [request for request in line if request.id == request_id]:
                self._remove(key, request)
                request.vectors.close()

    def advance(self) -> Vector | None:
        """Do one piece of work. After a vector the next key has its turn, and next time the next request of this one."""
        if not self._lines:
            return None
        key, line = next(iter(self._lines.items()))
        request = line[0]
        try:
            values = next(request.vectors)
            if values is not None:
                check_vector(values)
        except (StopIteration, EngineError) as ended:
            self._remove(key, request)
            request.vectors.close()
            return Vector(request_id=request.id, error=ended) if isinstance(ended, EngineError) else None
        if values is None:
            return None
        line.rotate(-1)
        self._lines[key] = self._lines.pop(key)
        return Vector(request_id=request.id, values=values)

    def _remove(self, key: str, request: _Request) -> None:
        self._lines[key].remove(request)
        if not self._lines[key]:
            del self._lines[key]
