"""How many prompt tokens a step may compute, and of which prompts, so that nobody waits too long. Knows no engine."""

import math

MIN_TOKENS = 8  # a prompt has to get on, whatever the target
FIRST_TOKENS = 32  # before anything was measured
WEIGHT = 0.2  # of the newest step in the running averages
UNUSUAL = 1  # steps at first that count only till there is another: a GPU compiles its kernels in them, for up to seconds
ALONE, ALONE_TOKENS = 1.0, 128  # seconds of a step where nobody decodes, for somebody may come; but no fewer tokens
MARGIN = 0.9  # of the target is planned with: two steps alike differ by so much


class PrefillBudget:
    """Learns from each step what a decode step and a prompt token cost on this machine with this model."""

    def __init__(self, target_seconds: float, batch_tokens: int) -> None:
        self._target = target_seconds
        self._batch_tokens = batch_tokens
        self._decode_seconds: float | None = None  # a step without prompt tokens
        self._decode_steps = 0
        self._token = _TokenCost()

    def tokens(self, decoding: int, position: int = 0, seconds: float | None = None) -> int:
        """Prompt tokens for the next step, beside `decoding` jobs that each draw one.

        `position` is where the longest of the prompts goes on: each token attends to all before it. `seconds`: that the step may take,
        where that is not the target, and not ALONE where nobody decodes.
        """
        room = self._batch_tokens - decoding
        if not self._token.is_known:
            return min(room, FIRST_TOKENS) if decoding or seconds else room
        least = MIN_TOKENS
        if seconds is None and not decoding:
            seconds, least = max(ALONE, self._target), min(room, ALONE_TOKENS)
        elif seconds is None:
            seconds = self._target
        left = MARGIN * seconds - ((self._decode_seconds or 0.0) if decoding else 0.0)
        return max(least, min(room, self._token.how_many(left, position)))

    def observe(self, decoding: int, prefilled: int, seconds: float, position: float = 0.0) -> None:
        """What the last step took. `position` is the mean one of its prompt tokens."""
        if prefilled == 0:
            known = self._decode_seconds or 0.0
            self._decode_seconds = known + _weight(self._decode_steps) * (seconds - known)
            self._decode_steps += 1
        elif prefilled >= MIN_TOKENS:
            beside = (self._decode_seconds or 0.0) if decoding else 0.0
            self._token.observe(max(seconds - beside, 1e-6) / prefilled, position)


def _weight(seen: int) -> float:
    """Of the next step, where so many were seen."""
    return WEIGHT if seen > UNUSUAL else 1.0


class _TokenCost:
    """Seconds of a prompt token as a line over its position, fitted to the last steps.

    Where all these were near one position, the line is given the slope that doubles the cost of the first token within
    DOUBLING tokens, and loses it as other positions are seen.
    """

    DOUBLING = 250
    SPREAD = 50.0  # tokens: positions that differ by less say nothing of the slope

    def __init__(self) -> None:
        self._steps = 0
        self._seconds = self._position = self._variance = self._covariance = 0.0

    @property
    def is_known(self) -> bool:
        return self._steps > 0

    def observe(self, seconds: float, position: float) -> None:
        weight = _weight(self._steps)
        self._steps += 1
        off_seconds, off_position = seconds - self._seconds, position - self._position
        self._seconds += weight * off_seconds
        self._position += weight * off_position
        # Exponentially weighted moments, West 1979.
        self._variance = (1 - weight) * (self._variance + weight * off_position**2)
        self._covariance = (1 - weight) * (self._covariance + weight * off_position * off_seconds)

    def how_many(self, seconds: float, position: int) -> int:
        """Tokens from `position` on that can be computed in so many seconds."""
        prior = self._seconds / (self._position + self.DOUBLING)
        slope = max(0.0, (self._covariance + self.SPREAD**2 * prior) / (self._variance + self.SPREAD**2))
        first = max(self._seconds + slope * (position - self._position), self._seconds / 10)
        if seconds <= 0:
            return 0
        # n tokens take n * first + slope * n² / 2
        root = math.sqrt(first**2 + 2 * slope * seconds)
        return int(2 * seconds / (first + root))


def share_room(room: int, prompts: list[int]) -> list[int]:
    """Tokens for each of the prompts, given how many tokens each has left, in the order they were admitted.

    Each gets one: a sequence that is left out of a batch splits the forward pass of its neighbours. Half of the rest is
    the oldest's, so that none is passed for ever. What remains is for those with the fewest left, so that a short prompt
    does not wait for a long one to end.
    """
    shares = [1] * len(prompts)
    room = max(0, room - len(prompts))
    in_turn = sorted(range(len(prompts)), key=lambda index: prompts[index])  # a stable sort: among equals the oldest
    for index, most in [(0, room // 2), *((index, room) for index in in_turn)]:
        share = min(prompts[index] - shares[index], room, most)
        shares[index] += share
        room -= share
    return shares
