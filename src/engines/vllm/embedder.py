"""Models that were made for embeddings: texts to vectors, by the pooling that the model's own files ask for."""

from collections.abc import Generator, Iterator

from vllm import PoolingParams

from src.engines.base import Engine, EngineStats, Job, Step
from src.engines.vllm.core import Core
from src.errors import EngineError


class VLLMEmbedder(Engine):
    """The core computes inputs of several callers together: each has at most as many there as one step holds."""

    generates = False

    def __init__(self, core: Core) -> None:
        self._core = core
        self.context_length, self.device = core.context_length, core.device
        self.embedding_length = core.config.model_config.embedding_size
        self._numbers = 0
        self._vectors: dict[int, list[float] | None] = {}  # of the inputs that the core was given; None: it has not got there yet

    def add(self, job: Job) -> None:
        raise EngineError("This model was made for embeddings and writes no text.")

    def cancel(self, job_id: int) -> None:
        pass

    def step(self) -> list[Step]:
        return []

    def embed(self, inputs: list[list[int]]) -> Generator[list[float] | None, None, None]:
        for tokens in inputs:
            if not 0 < len(tokens) <= self.context_length:
                raise EngineError(f"An input of {len(tokens)} tokens does not fit a context of {self.context_length}.")
            self._core.check(tokens)
        todo, given = iter(inputs), list[int]()
        try:
            self._give(todo, given)
            while given:
                while (vector := self._vectors[given[0]]) is None:
                    self._advance()
                    if self._vectors[given[0]] is None:
                        yield None
                del self._vectors[given.pop(0)]
                self._give(todo, given)
                yield vector
        finally:
            for number in given:
                if self._vectors.pop(number) is None:
                    self._core.abort(number)

    def stats(self) -> EngineStats:
        return EngineStats(slots=self._core.slots, compute_seconds=self._core.compute_seconds)

    def close(self) -> None:
        self._core.close()

    def _give(self, todo: Iterator[list[int]], given: list[int]) -> None:
        while len(given) < self._core.slots and (tokens := next(todo, None)):
            self._numbers += 1
            self._core.add(self._numbers, tokens, PoolingParams(task="embed"))
            self._vectors[self._numbers] = None
            given.append(self._numbers)

    def _advance(self) -> None:
        for output in self._core.wait() or ():
            if int(output.request_id) in self._vectors:  # else it was given up
                self._vectors[int(output.request_id)] = output.outputs.data.tolist()
