"""How many prompt tokens a step may compute, and of which prompts, so that nobody waits too long. Knows no engine."""

MIN_TOKENS = 16  # fewer cost a step nearly as much: a prompt has to get on, whatever the target
FIRST_TOKENS = 32  # before anything was measured
WEIGHT = 0.2  # of the newest step in the running averages


class PrefillBudget:
    """Learns from each step what a decode step and a prompt token cost on this machine with this model."""

    def __init__(self, target_seconds: float, batch_tokens: int) -> None:
        self._target = target_seconds
        self._batch_tokens = batch_tokens
        self._decode_seconds: float | None = None  # a step without prompt tokens
        self._token_seconds: float | None = None  # one prompt token more

    def tokens(self, decoding: int) -> int:
        """Prompt tokens for the next step, beside `decoding` jobs that each draw one."""
        room = self._batch_tokens - decoding
        if not decoding:
            return room  # nobody waits
        if self._token_seconds is None:
            return min(room, FIRST_TOKENS)
        left = self._target - (self._decode_seconds or 0.0)
        return max(MIN_TOKENS, min(room, int(left / self._token_seconds)))

    def observe(self, decoding: int, prefilled: int, seconds: float) -> None:
        """What the last step took."""
        if prefilled == 0:
            self._decode_seconds = _average(self._decode_seconds, seconds)
        elif prefilled >= MIN_TOKENS:
            beside = (self._decode_seconds or 0.0) if decoding else 0.0
            self._token_seconds = _average(self._token_seconds, max(seconds - beside, 1e-6) / prefilled)


def share_room(room: int, prompts: list[int]) -> list[int]:
    """Tokens for each of the prompts, given how many tokens each has left, in the order they were admitted.

    Half is the oldest's, so that none is passed for ever. The rest is for those with the fewest left, so that a short
    prompt does not wait for a long one to end.
    """
    shares = [0] * len(prompts)
    in_turn = sorted(range(len(prompts)), key=lambda index: prompts[index])  # a stable sort: among equals the oldest
    for index, most in [(0, room // 2), *((index, room) for index in in_turn)]:
        share = min(prompts[index] - shares[index], room, most)
        shares[index] += share
        room -= share
    return shares


def _average(known: float | None, newest: float) -> float:
    return newest if known is None else known + WEIGHT * (newest - known)
