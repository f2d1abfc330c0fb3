"""Texts to vectors of length 1. Knows neither the model's layers nor sockets."""

import asyncio
import math
import sys
from array import array
from collections.abc import AsyncGenerator

from src.engines.finite import check_vector
from src.errors import InvalidValue, UnsupportedField
from src.protocol import Embed, Embedded, Finished
from src.runner.embedding_queue import Vector
from src.runner.engine_loop import EngineLoop
from src.runner.prompts import Prompts


class Embedder:
    def __init__(self, loop: EngineLoop, prompts: Prompts, embedding_length: int, matryoshka: list[int] | None) -> None:
        """`matryoshka`: lengths that the model's vectors may be cut to; []: any; None: they may not."""
        self._loop = loop
        self._prompts = prompts
        self._length = embedding_length
        self._matryoshka = matryoshka

    async def embed(self, request: Embed) -> AsyncGenerator[Embedded | Finished, None]:
        """Closing the iterator cancels the work. Raises ServiceError."""
        length = self._wanted_length(request.dimensions)
        inputs = await self._prompts.encoded_inputs(request.prompts, request.key)
        vectors: asyncio.Queue[Vector] = asyncio.Queue()
        request_id = self._loop.embed(inputs, vectors, request.key)
        try:
            for _ in inputs:
                vector = await vectors.get()
                if vector.error:
                    raise vector.error
                yield Embedded(vector=_normalised(vector.values[:length]))
        finally:
            self._loop.cancel(request_id)
        yield Finished(prompt_tokens=sum(len(tokens) for tokens in inputs), completion_tokens=0, cached_tokens=0)

    def _wanted_length(self, dimensions: int | None) -> int:
        if not self._length:
            raise UnsupportedField("This model cannot embed texts on its engine.", "model")
        if dimensions is None or dimensions == self._length:
            return self._length
        if self._matryoshka is None:
            raise UnsupportedField(
                f"dimensions: this model's vectors have {self._length} numbers, and it was not trained for fewer.",
                "dimensions",
            )
        if dimensions > self._length or (self._matryoshka and dimensions not in self._matryoshka):
            lengths = ", ".join(map(str, self._matryoshka)) or f"1 to {self._length}"
            raise InvalidValue(f"dimensions is wrong: this model's vectors may have {lengths} numbers.", "dimensions")
        return dimensions


def _normalised(values: list[float]) -> bytes:
    """Raises InvalidOutput."""
    check_vector(values)
    length = math.sqrt(sum(value * value for value in values))
    numbers = array("f", [value / length for value in values])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()
