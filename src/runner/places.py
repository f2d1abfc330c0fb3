"""Places of a model's requests, running and queued: how many a key may hold. Knows no socket and no engine.

A key may hold any number while a reserve of places stays free. The reserve is for keys that hold no more than a fair share:
max(1, places / (keys that hold some + 1)), so that there is always room for one key more.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Iterator

from src.errors import InvalidValue, TooManyRequests
from src.protocol import Embed, Generate, Message
from src.runner.retry_after import PlaceEstimate

RESERVE = 8  # one place in so many
INPUTS_PER_PLACE = 64  # of a request for embeddings: they are computed one after another, but keep the engine busy for longer


class Places:
    def __init__(self, total: int) -> None:
        self._total = total
        self._most = total - total // RESERVE  # that one key can hold
        self._held: Counter[str] = Counter()
        self._pace = PlaceEstimate()

    @property
    def taken(self) -> int:
        return self._held.total()

    def wanted(self, request: Message) -> int:
        """A place for each sequence of a request for text. Raises InvalidValue where no key can hold as many."""
        if isinstance(request, Embed):
            return min(self._most, math.ceil(len(request.prompts) / INPUTS_PER_PLACE))
        if not isinstance(request, Generate):
            return 1
        sequences = request.n * len(request.prompts)
        if sequences > self._most:
            text = f"{sequences} sequences are asked for at once, but MAX_CONCURRENT_REQUESTS allows {self._most} to a key. Ask for fewer."
            raise InvalidValue(text, "n" if request.n > 1 else "prompt")
        return sequences

    @contextlib.contextmanager
    def hold(self, key: str, number: int, *, resumed: bool = False) -> Iterator[None]:
        """`resumed`: they were held before the runner was started again. Raises TooManyRequests where a key cannot have as many."""
        self._check(key, number, resumed)
        self._held[key] += number
        try:
            yield
        finally:
            self._held[key] -= number
            if not self._held[key]:
                del self._held[key]
            self._pace.ended(number)

    def retry_after(self, places: int = 1) -> int:
        """Seconds until so many places will be free."""
        return self._pace.seconds_for(places)

    def _check(self, key: str, number: int, resumed: bool) -> None:
        after = self.taken + number
        if after > self._total:
            raise TooManyRequests(
                f"{self.taken} sequences are running or waiting on this model; with this request they would be more than "
                f"the {self._total} that MAX_CONCURRENT_REQUESTS allows.",
                retry_after=self.retry_after(after - self._total),
            )
        fair = max(1, self._total // (len({*self._held, key}) + 1))
        if not resumed and self._held[key] + number > fair and after > self._most:
            raise TooManyRequests(
                f"This key or address has {self._held[key]} sequences running or waiting on this model. Of the {self._total} places "
                f"that MAX_CONCURRENT_REQUESTS allows, the last {self._total - self._most} are for those that have no more than {fair}.",
                retry_after=self.retry_after(after - self._most),
            )
