"""Models that were made for embeddings: texts to vectors, by the pooling that the model's own files ask for."""

from collections.abc import Generator, Iterator

from vllm import PoolingParams

from src.engines.base import Engine, EngineStats, Job, Step
from src.engines.vllm.core import Core


class VLLMEmbedder(Engine):
    """The core computes inputs of several callers together: each has at most as many there as one step holds."""

    features = frozenset({"embeddings"})

    def __init__(self, core: Core) -> None:
        self._core = core
        self.context_length, self.vocab_size, self.device = core.context_length, core.vocab_size, core.device
        self.embedding_length = core.config.model_config.embedding_size
        self._numbers = 0
        self._vectors: dict[int, list[float] | None] = {}  # of the inputs that the core has; None: not computed yet

    def add(self, job: Job) -> None:
        raise AssertionError("this model generates nothing: see `features`")

    def cancel(self, job_id: int) -> None:
        pass

    def step(self) -> list[Step]:
        return []

    def embed(self, inputs: list[list[int]]) -> Generator[list[float] | None, None, None]:
        for tokens in inputs:
            assert 0 < len(tokens) <= self.context_length
            assert min(tokens) >= 0 and max(tokens) < self.vocab_size
        todo, submitted = iter(inputs), list[int]()
        try:
            self._submit(todo, submitted)
            while submitted:
                while (vector := self._vectors[submitted[0]]) is None:
                    self._advance()
                    if self._vectors[submitted[0]] is None:
                        yield None
                del self._vectors[submitted.pop(0)]
                self._submit(todo, submitted)
                yield vector
        finally:
            for number in submitted:
                if self._vectors.pop(number) is None:
                    self._core.abort(number)

    def stats(self) -> EngineStats:
        return EngineStats(slots=self._core.slots, compute_seconds=self._core.compute_seconds)

    def close(self) -> None:
        self._core.close()

    def _submit(self, todo: Iterator[list[int]], submitted: list[int]) -> None:
        while len(submitted) < self._core.slots and (tokens := next(todo, None)):
            self._numbers += 1
            self._core.add(self._numbers, tokens, PoolingParams(task="embed"))
            self._vectors[self._numbers] = None
            submitted.append(self._numbers)

    def _advance(self) -> None:
        for output in self._core.wait() or ():
            if int(output.request_id) in self._vectors:  # else it was cancelled
                self._vectors[int(output.request_id)] = output.outputs.data.tolist()
