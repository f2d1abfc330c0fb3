"""Sequences and the KV cells they hold: which slot a job gets, what of its prompt is there already. Computes nothing."""

from collections import deque

import llama_cpp.llama_cpp as ll

from src.engines.base import Job
from src.engines.llamacpp.model import LoadedModel
from src.engines.llamacpp.sampler import Sampler
from src.engines.prefix import common_prefix

COPY_WORTH = 32  # prompt tokens: a copy moves a whole stream of the KV cache, which takes as long as computing some tokens
MOVE_WORTH = 32  # completion tokens still to come: a move is such a copy, and saves a part of each of their steps


class Slot:
    """One sequence of the context. `cells` are the tokens its KV cells hold, in order; `todo` those to compute next."""

    def __init__(self, seq_id: int) -> None:
        self.seq_id = seq_id
        self.cells: list[int] = []
        self.scope = ""  # of the job that the cells were computed for
        self.todo: deque[int] = deque()
        self.job: Job | None = None
        self.sampler: Sampler | None = None
        self.drawn = 0
        self.cached_tokens: int | None = None  # until the job's first step has told it
        self.admitted_at = self.used_at = 0  # by the clock of Slots, which counts admissions and releases

    def shared(self, job: Job, tokens: list[int]) -> int:
        """How many of the tokens, from the first, its cells hold for the job."""
        return common_prefix(self.cells, tokens) if self.scope == job.scope else 0

    def held(self, other: "Slot") -> int:
        """How many of the other's cells it holds as well."""
        return common_prefix(self.cells, other.cells) if self.scope == other.scope else 0

    def coming(self, job: Job) -> int:
        """How many of the job's tokens they will hold once what it has to do is done."""
        return common_prefix([*self.cells, *self.todo], job.tokens) if self.scope == job.scope else 0


class Slots:
    """All slots of a context. An idle slot's cells stay as a prefix for later jobs, at most `kept` of them.

    A job finds what it shares with others in three ways: in the slot it gets, by a copy from another slot (which may be
    running), or by waiting for a slot that is computing it just now.
    """

    def __init__(self, model: LoadedModel, kept: int) -> None:
        self._model = model
        self._kept = kept
        self._clock = 0
        self.copies = self.moves = 0
        self.all = [Slot(seq_id) for seq_id in range(model.slots)]

    def running(self) -> list[Slot]:
        """In the order of their sequence ids: llama.cpp computes neighbouring sequences together."""
        return [slot for slot in self.all if slot.job]

    def free(self) -> list[Slot]:
        return [slot for slot in self.all if not slot.job]

    def worth_waiting(self, job: Job) -> bool:
        """Is a running prompt about to compute much of what this job needs, so that it can be copied in a moment?"""
        if not self._kept:
            return False
        there = max(slot.shared(job, job.tokens) for slot in self.all)
        coming = (slot.coming(job) for slot in self.running() if len(slot.todo) > 1)
        return max(coming, default=0) - there >= COPY_WORTH

    def take(self, job: Job) -> Slot:
        """A free slot for the job, there has to be one, with as much of the job's prefix in place as can be had."""
        slot, common = self._place(job)
        common = self._cut(slot, common)
        slot.job, slot.scope = job, job.scope
        slot.sampler = Sampler(self._model, job)
        slot.todo = deque(job.tokens[common:])
        slot.drawn = 0
        slot.admitted_at = self._tick()
        slot.cached_tokens = min(common, job.prompt_tokens)
        return slot

    def release(self, slot: Slot) -> None:
        """End the slot's job. Its cells are kept for reuse; beyond the bound those unused for longest go, but for what others hold."""
        assert slot.sampler is not None
        slot.sampler.close()
        slot.job = slot.sampler = None
        slot.todo.clear()
        slot.used_at = self._tick()
        idle = sorted((s for s in self.all if s.cells and not s.job), key=lambda s: s.used_at)
        surplus = max(0, len(idle) - self._kept)
        others = [*idle[surplus:], *self.running()] if self._kept else []
        for oldest in idle[:surplus]:
            # What others hold too, a system prompt say, stays: it costs nothing, and the slot's next job need not compute it.
            self._cut(oldest, max((other.held(oldest) for other in others), default=0))

    def clean(self, spoilt: list[Slot]) -> None:
        """Wipe free slots in whose cells there is NaN, which attention carries on to whoever has the slot next: also from cells
        that are not in use any more, for what is masked is multiplied by 0. Any other slot's cells are good to write over them."""
        source = next((slot for slot in self.all if slot not in spoilt), None)
        for slot in spoilt:
            if source:
                self._copy(source, slot)
            self._cut(slot, 0)
        if spoilt and not source:
            ll.llama_memory_clear(self._model.memory, True)

    def close_gap(self) -> None:
        """Move the last running sequence into the first hole among those that run, where it has long to go.

        llama.cpp computes sequences together only while their ids are consecutive: each hole costs a forward pass more.
        One move a call, since a copy keeps everybody waiting.
        """
        running = [slot.seq_id for slot in self.running()]
        if not running or running[-1] - running[0] < len(running):
            return
        hole, last = next(slot for slot in self.all[running[0] :] if not slot.job), self.all[running[-1]]
        assert last.job is not None
        if last.job.max_tokens - last.drawn < MOVE_WORTH:
            return
        self._save(hole)
        self._copy(last, hole)
        self.all[hole.seq_id], self.all[last.seq_id] = last, hole
        hole.seq_id, last.seq_id = last.seq_id, hole.seq_id
        self._cut(hole, 0)
        self.moves += 1

    def _save(self, slot: Slot) -> None:
        """Copy what an idle slot keeps to an empty one, or over what has been unused for longer."""
        spare = self._spare([other for other in self.free() if other is not slot] or [slot])
        if len(slot.cells) >= COPY_WORTH and (not spare.cells or spare.used_at < slot.used_at):
            self._copy(slot, spare)
            spare.used_at = slot.used_at

    def _spare(self, free: list[Slot]) -> Slot:
        """An empty slot, else the longest unused one: what the others hold may still be asked for."""
        return min(free, key=lambda slot: (True, slot.used_at) if slot.cells else (False, slot.seq_id))

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def _place(self, job: Job) -> tuple[Slot, int]:
        """The slot for a job, and how many of its tokens the slot's cells hold."""
        known = job.tokens[:-1]  # the last token is always computed: its logits are what the first draw needs
        shared = {slot.seq_id: slot.shared(job, known) for slot in self.all}
        free = self.free()
        best = max(free, key=lambda slot: (shared[slot.seq_id], -slot.used_at))
        spare = self._spare(free)
        source = max(self.all, key=lambda slot: shared[slot.seq_id])
        if shared[source.seq_id] - shared[best.seq_id] < COPY_WORTH:
            if best is spare or len(best.cells) - shared[best.seq_id] < COPY_WORTH:
                return best, shared[best.seq_id]
            source = best  # what it holds beyond the common prefix is worth keeping
        if self._kept and shared[source.seq_id] - shared[spare.seq_id] >= COPY_WORTH:
            self._copy(source, spare)
            self.copies += 1
            return spare, shared[source.seq_id]
        return spare, shared[spare.seq_id]

    def _copy(self, source: Slot, target: Slot) -> None:
        """Between streams llama.cpp copies whole sequences only: a partial copy ends the process. The rest is cut after."""
        ll.llama_memory_seq_rm(self._model.memory, target.seq_id, -1, -1)
        ll.llama_memory_seq_cp(self._model.memory, source.seq_id, target.seq_id, -1, -1)
        target.cells, target.scope = list(source.cells), source.scope

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
