"""Which tokens a job's grammar allows, followed a token ahead. Knows nothing of logits or batches."""

from collections.abc import Callable

from src.engines.base import Grammar
from src.errors import EngineError


class Mask:
    """Asked place by place. It can be asked for the last place once more, and then be told the same token again: where
    memory runs out, the generator is made anew and draws again what it had drawn ahead."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._drawn: list[int] = []
        self._masks: dict[int, bytes] = {}

    def behind(self, count: int, last: Callable[[], int]) -> bytes:
        """What may follow the job's first `count` tokens drawn here; `last` waits for the last of them. Raises EngineError."""
        if count > len(self._drawn):
            token = last()
            self._grammar.accept(token)
            self._drawn.append(token)
        elif count and last() != self._drawn[count - 1]:
            raise EngineError("A token was drawn again, and came out as another one: its grammar cannot go back.")
        if count not in self._masks:
            self._masks = {place: mask for place, mask in self._masks.items() if place == count - 1}
            self._masks[count] = self._grammar.allowed()
        return self._masks[count]
