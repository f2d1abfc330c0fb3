"""Sequences and the KV cells they hold: which slot a job gets, what of its prompt is there already. Computes nothing."""

from collections import deque

import llama_cpp.llama_cpp as ll

from src.engines.base import Job
from src.engines.llamacpp.model import LoadedModel
from src.engines.llamacpp.sampler import Sampler


class Slot:
    """One sequence of the context. `cells` are the tokens its KV cells hold, in order; `todo` those to compute next."""

    def __init__(self, seq_id: int) -> None:
        self.seq_id = seq_id
        self.cells: list[int] = []
        self.todo: deque[int] = deque()
        self.job: Job | None = None
        self.sampler: Sampler | None = None
        self.drawn = 0
        self.cached_tokens: int | None = None  # until the job's first step has told it
        self.used_at = 0


class Slots:
    """All slots of a context. An idle slot's cells stay as a prefix for later jobs, at most `kept` of them."""

    def __init__(self, model: LoadedModel, kept: int) -> None:
        self._model = model
        self._kept = kept
        self._clock = 0
        self.all = [Slot(seq_id) for seq_id in range(model.slots)]

    def running(self) -> list[Slot]:
        """In the order of their sequence ids: llama.cpp computes neighbouring sequences together."""
        return [slot for slot in self.all if slot.job]

    def take(self, job: Job) -> Slot | None:
        """A free slot for the job, with what it shares of the job's tokens left in place; None when all are busy."""
        free = [slot for slot in self.all if not slot.job]
        if not free:
            return None
        slot, common = self._choose(free, job.tokens)
        common = self._cut(slot, common)
        slot.job = job
        slot.sampler = Sampler(self._model, job.sampling, job.tokens[: job.prompt_tokens], job.tokens[job.prompt_tokens :])
        slot.todo = deque(job.tokens[common:])
        slot.drawn = 0
        slot.cached_tokens = min(common, job.prompt_tokens)
        return slot

    def release(self, slot: Slot) -> None:
        """End the slot's job. Its cells are kept for reuse; beyond the bound the longest unused ones are freed."""
        assert slot.sampler is not None
        slot.sampler.close()
        slot.job = slot.sampler = None
        slot.todo.clear()
        self._clock += 1
        slot.used_at = self._clock
        idle = sorted((s for s in self.all if s.cells and not s.job), key=lambda s: s.used_at)
        for oldest in idle[: max(0, len(idle) - self._kept)]:
            self._cut(oldest, 0)

    def _choose(self, free: list[Slot], tokens: list[int]) -> tuple[Slot, int]:
        """The slot that shares the longest prefix; an empty one rather than destroying mostly foreign cells."""
        # The last token is always computed: its logits are what the first draw needs.
        shared = {slot.seq_id: _common_prefix(slot.cells, tokens[:-1]) for slot in free}
        best = max(free, key=lambda slot: (shared[slot.seq_id], -slot.used_at))
        empty = next((slot for slot in free if not slot.cells), None)
        if empty and shared[best.seq_id] * 2 < min(len(best.cells), len(tokens)):
            return empty, 0
        return best, shared[best.seq_id]

    def _cut(self, slot: Slot, length: int) -> int:
        """Drop the slot's cells from `length` on; all of them where this model's memory cannot be cut there."""
        memory, seq = self._model.memory, slot.seq_id
        if length < len(slot.cells) or length == 0:
            removed = ll.llama_memory_seq_rm(memory, seq, length, -1)
            # With a sliding window the cells before `length` may be gone already; recurrent states cannot be cut.
            window_start = max(0, length - self._model.n_swa) if self._model.n_swa else 0
            if not removed or (length and ll.llama_memory_seq_pos_min(memory, seq) > window_start):
                length = 0
                ll.llama_memory_seq_rm(memory, seq, -1, -1)
            del slot.cells[length:]
        return length


def _common_prefix(a: list[int], b: list[int]) -> int:
    limit = min(len(a), len(b))
    if a[:limit] == b[:limit]:
        return limit
    return next(i for i in range(limit) if a[i] != b[i])
