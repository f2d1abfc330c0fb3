"""How far an answer has come, by its events: what another runner needs to know to continue it."""

import time

from msgspec.structs import replace

from src.api.generation.blame import Blame
from src.protocol import Delta, Ended, Finished, Generate, Quarantined, Started

Event = Started | Delta | Ended | Finished


class Progress:
    """Takes in the events of one runner after another and gives out those of one answer: none twice, none missing."""

    def __init__(self, asked: Generate) -> None:
        self.asked = asked
        self.fruitless = 0  # runners that were lost in a row without a token from any of them
        choices = asked.n * len(asked.prompts)
        self._tokens: list[list[int]] = [[] for _ in range(choices)]
        self._tokens_before = 0  # those of the runners before this one
        self._blame = Blame()
        self._ended: set[int] = set()
        self._last: dict[int, Delta] = {}  # those whose Ended has to come before they count
        self._echoed: set[int] = set()  # choices whose prompt's text has come
        self._skip: set[int] = set()  # those of them whose prompt's text comes once more
        self._started: Started | None = None
        self._finished: Finished | None = None
        self._started_at = self._first_token_at = 0.0
        self._resumed = False

    @property
    def begun(self) -> bool:
        """Whether any of it depends on the model's tokens."""
        return any(self._tokens) or bool(self._ended)

    @property
    def tokens_used(self) -> int:
        """By the prompt, and by the answer as far as it has come."""
        prompt = self._started.prompt_tokens if self._started else 0
        return prompt + (self._finished.completion_tokens if self._finished else self._count())

    def resume_request(self) -> Generate:
        """What to ask another runner for the rest."""
        self._resumed, self._tokens_before = True, self._count()
        self._last.clear()
        self._skip = set() if any(self._tokens) else set(self._echoed)
        return replace(self.asked, resume=self._tokens if any(self._tokens) else [], crashes=self._blame.crashes)

    def runner_died(self, exit: str) -> None:
        """The runner that had the request died: "signal SIGSEGV", say. Raises EngineCrashed if it died of this request."""
        self._blame.runner_died(exit, self._count() - self._tokens_before, fruitless=self.fruitless > 1)

    def push(self, event: Event | Quarantined) -> list[Event]:
        """What of it is new, in order."""
        if isinstance(event, Quarantined):
            self._blame.quarantined(event.open)
            return []
        if isinstance(event, Started):
            return self._start(event)
        if isinstance(event, Finished):
            return [self._finish(event)]
        if event.index in self._ended:
            return []
        if isinstance(event, Ended):
            last = self._last.pop(event.index, None)
            new = self._add(last) if last else []
            self._ended.add(event.index)
            return [*new, event]
        if event.last:  # what an end set free would come twice, if the end did not come and the choice had to be continued
            self._last[event.index] = event
            return []
        return self._add(event)

    def _start(self, started: Started) -> list[Event]:
        if self._started:
            return []
        self._started, self._started_at = started, time.monotonic()
        return [started]

    def _add(self, delta: Delta) -> list[Event]:
        if delta.tokens:
            self.fruitless = 0
            self._tokens[delta.index] += delta.tokens
            self._first_token_at = self._first_token_at or time.monotonic()
        elif self.asked.echo:
            if delta.index in self._skip:
                self._skip.discard(delta.index)
                return []
            self._echoed.add(delta.index)
        return [delta]

    def _finish(self, finished: Finished) -> Finished:
        """As if it had been one runner's: a prompt that had to be computed again does not count twice."""
        self._finished = finished
        if not self._resumed or not self._started:
            return finished
        first_token_at = self._first_token_at or time.monotonic()
        return replace(
            finished,
            cached_tokens=self._started.cached_tokens,
            prefill_seconds=first_token_at - self._started_at,
            decode_seconds=time.monotonic() - first_token_at,
        )

    def _count(self) -> int:
        return sum(map(len, self._tokens))
