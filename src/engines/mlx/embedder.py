"""Inputs to vectors: the mean of the last hidden states, input by input in pieces. Knows nothing of jobs."""

import time
from collections.abc import Callable, Generator

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from src.engines.mlx.memory_errors import is_memory
from src.engines.mlx.model import LoadedModel
from src.engines.prefill_budget import PrefillBudget
from src.errors import EngineDead, InsufficientMemory


class Embedder:
    def __init__(self, model: LoadedModel, budget: PrefillBudget) -> None:
        """`budget` learns from each piece of work."""
        self._model = model
        self.budget = budget
        self.bytes = 0  # that the KV cache of the input at hand comes to

    def embed(
        self, inputs: list[list[int]], running: Callable[[], int], makes_room: Callable[[int], bool]
    ) -> Generator[list[float] | None, None, None]:
        """As Engine.embed. `running`: jobs that wait for their next token while this works; `makes_room`: for so many bytes."""
        for tokens in inputs:
            size = self._model.sequence_bytes(len(tokens))
            while not makes_room(size):
                yield None
            self.bytes = size
            try:
                vector = yield from self._embed_one(tokens, running)
            finally:
                self.bytes = 0
            yield vector

    def _embed_one(self, tokens: list[int], running: Callable[[], int]) -> Generator[None, None, list[float]]:
        cache = make_prompt_cache(self._model.model)
        total = mx.zeros(self._model.embedding_length)
        done = 0
        while True:
            began = time.perf_counter()
            piece = tokens[done : done + self.budget.tokens(running(), done)]
            try:
                states = self._model.layers(mx.array([piece]), cache=cache)
                total = total + states[0].astype(mx.float32).sum(axis=0)
                mx.eval(total, [layer.state for layer in cache])
            except (RuntimeError, MemoryError) as error:
                if is_memory(error):
                    raise InsufficientMemory("There was no memory to embed this input. Send a shorter one.") from error
                raise EngineDead(f"MLX failed: {error}") from error
            self.budget.observe(0, len(piece), time.perf_counter() - began, done + len(piece) / 2)
            done += len(piece)
            if done == len(tokens):
                vector: list[float] = (total / len(tokens)).tolist()
                return vector
            yield None
