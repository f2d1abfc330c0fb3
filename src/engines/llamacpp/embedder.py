"""Inputs to vectors, in a second context of the model that gives hidden states rather than logits. Knows nothing of jobs.

llama.cpp's own pooling takes no input that is longer than one batch: here the states are added up as they come.
"""

import ctypes
import time
from collections.abc import Callable, Generator, Iterator

import llama_cpp.llama_cpp as ll
import numpy as np
from numpy.typing import NDArray

from src.engines.llamacpp.model import CLS, LAST, LoadedModel
from src.engines.prefill_budget import PrefillBudget

SEQUENCES = 32  # short inputs that are computed together
BATCH_TOKENS = 128  # of one piece of work. llama.cpp keeps the logits of all of them, though nobody asks for any
Place = tuple[int, int, int]  # of a token: its input in the group, its position there, itself


class Embedder:
    def __init__(self, model: LoadedModel, budget: PrefillBudget) -> None:
        """`budget` learns from each piece of work. Raises InsufficientMemory, with the numbers."""
        self._model = model
        self._budget = budget
        # Where every token attends to all, an input cannot be computed in parts: nothing else runs on such a model.
        batch_tokens = BATCH_TOKENS if model.generates else model.context_length
        self._context = model.make_embedding_context(SEQUENCES, batch_tokens)
        self._memory = ll.llama_get_memory(self._context)
        self._batch = ll.llama_batch_init(batch_tokens, 0, 1)
        self._state = ctypes.c_float * model.embedding_length

    def embed(
        self, inputs: list[list[int]], running: Callable[[], int], seconds: Callable[[], float | None]
    ) -> Generator[list[float] | None, None, None]:
        """As Engine.embed. `running`: jobs that wait for their next token while this works; `seconds`: that a piece may take, None
        where nobody is about to ask for more."""
        for group in self._groups(inputs):
            yield from self._embed_together(group, running, seconds)

    def close(self) -> None:
        ll.llama_batch_free(self._batch)
        ll.llama_free(self._context)

    def _groups(self, inputs: list[list[int]]) -> Iterator[list[list[int]]]:
        """Neighbours whose tokens the context holds together."""
        group: list[list[int]] = []
        room = self._model.context_length
        for tokens in inputs:
            if group and (len(group) == SEQUENCES or len(tokens) > room):
                yield group
                group, room = [], self._model.context_length
            group.append(tokens)
            room -= len(tokens)
        yield group

    def _embed_together(
        self, group: list[list[int]], running: Callable[[], int], seconds: Callable[[], float | None]
    ) -> Generator[list[float] | None, None, None]:
        states = np.zeros((len(group), self._model.embedding_length), np.float32)
        todo = [(index, position, token) for index, tokens in enumerate(group) for position, token in enumerate(tokens)]
        done = 0
        try:
            while True:
                began, position = time.perf_counter(), todo[done][1]
                size = self._budget.tokens(running(), position, seconds()) if self._model.generates else len(todo)
                piece = todo[done : done + size]
                self._compute(piece)
                self._add(piece, group, states)
                done += len(piece)
                self._budget.observe(0, len(piece), time.perf_counter() - began, position + len(piece) / 2)
                if done == len(todo):
                    break
                yield None
        finally:
            # NaN in a cell would reach the next inputs, though it is masked there: 0 times NaN.
            ll.llama_memory_clear(self._memory, not np.isfinite(states).all())
        for state in states:
            yield state.tolist()

    def _compute(self, piece: list[Place]) -> None:
        batch = self._batch
        batch.n_tokens = len(piece)
        for index, (sequence, position, token) in enumerate(piece):
            batch.token[index] = token
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = True
        self._model.compute(self._context, batch)

    def _add(self, piece: list[Place], group: list[list[int]], states: NDArray[np.float32]) -> None:
        """Take in the hidden states of a piece, as the model's pooling wants: the mean, the first token's, the last one's."""
        pooling = self._model.pooling
        for index, (sequence, position, _) in enumerate(piece):
            wanted = {CLS: position == 0, LAST: position == len(group[sequence]) - 1}.get(pooling, True)
            if wanted:
                states[sequence] += self._read(index)

    def _read(self, index: int) -> NDArray[np.float32]:
        """A token's hidden state, where llama.cpp holds it: valid until the next llama_decode."""
        state = ll.llama_get_embeddings_ith(self._context, index)
        return np.frombuffer(memoryview(self._state.from_address(ctypes.addressof(state.contents))), np.float32)
