"""How far an answer has come, by its events: what another runner has to know to go on with it. Knows no socket."""

import time

from msgspec.structs import replace

from src.protocol import Delta, Ended, Finished, Generate, Started

Event = Started | Delta | Ended | Finished


class Progress:
    """Takes in the events of one runner after another and gives out those of one answer: none twice, none missing."""

    def __init__(self, asked: Generate) -> None:
        self.fruitless = 0  # times it was asked again without a token since
        self.drawn = 0  # tokens told since it was asked
        self.asked = asked
        choices = asked.n * len(asked.prompts)
        self._tokens: list[list[int]] = [[] for _ in range(choices)]
        self._ended: set[int] = set()
        self._last: dict[int, Delta] = {}  # those whose Ended has to come before they count
        self._echoed: set[int] = set()  # choices whose prompt's text has come
        self._skip: set[int] = set()  # those of them whose prompt's text comes once more
        self._started: Started | None = None
        self._started_at = self._first_token_at = 0.0
        self._resumed = False

    @property
    def begun(self) -> bool:
        """Whether any of it depends on the model's tokens."""
        return any(self._tokens) or bool(self._ended)

    def again(self) -> Generate:
        """What to ask another runner for the rest."""
        self._resumed, self.fruitless, self.drawn = True, self.fruitless + 1, 0
        self._last.clear()
        self._skip = set() if any(self._tokens) else set(self._echoed)
        return replace(self.asked, resume=self._tokens if any(self._tokens) else [])

    def push(self, event: Event) -> list[Event]:
        """What of it is new, in order."""
        if isinstance(event, Started):
            return self._start(event)
        if isinstance(event, Finished):
            return [self._counted(event)]
        if event.index in self._ended:
            return []
        if isinstance(event, Ended):
            last = self._last.pop(event.index, None)
            new = self._say(last) if last else []
            self._ended.add(event.index)
            return [*new, event]
        if event.last:  # what an end gave free would be said twice, if the end did not come and the choice had to go on
            self._last[event.index] = event
            return []
        return self._say(event)

    def _start(self, started: Started) -> list[Event]:
        if self._started:
            return []
        self._started, self._started_at = started, time.monotonic()
        return [started]

    def _say(self, delta: Delta) -> list[Event]:
        if delta.tokens:
            self.fruitless = 0
            self.drawn += len(delta.tokens)
            self._tokens[delta.index] += delta.tokens
            self._first_token_at = self._first_token_at or time.monotonic()
        elif self.asked.echo:
            if delta.index in self._skip:
                self._skip.discard(delta.index)
                return []
            self._echoed.add(delta.index)
        return [delta]

    def _counted(self, finished: Finished) -> Finished:
        """As if it had been one runner's: a prompt that had to be computed again was not asked for again."""
        if not self._resumed or not self._started:
            return finished
        first_token_at = self._first_token_at or time.monotonic()
        return replace(
            finished,
            cached_tokens=self._started.cached_tokens,
            prefill_seconds=first_token_at - self._started_at,
            decode_seconds=time.monotonic() - first_token_at,
        )
