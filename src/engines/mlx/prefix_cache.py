"""KV caches of ended jobs, kept for prompts that begin alike. Knows nothing of jobs, and computes nothing."""

import copy
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import can_trim_prompt_cache, trim_prompt_cache

from src.engines.prefix import common_prefix

Cache = list[Any]  # one object of mlx-lm a layer


class _Kept:
    """The cache of one sequence, computed for exactly these tokens, of use to jobs of one scope."""

    def __init__(self, tokens: list[int], cache: Cache, scope: str) -> None:
        self.tokens = tokens
        self.cache = cache
        self.scope = scope
        self.bytes = sum(layer.nbytes for layer in cache)

    def shared(self, tokens: list[int], scope: str) -> int:
        """How many of the tokens, from the first, it can serve."""
        if scope != self.scope:
            return 0
        return usable(self.cache, len(self.tokens), common_prefix(self.tokens, tokens))


class Prefixes:
    """At most `most` sequences and `most_bytes` bytes; beyond that the longest unused ones go."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._kept: list[_Kept] = []  # the longest unused first

    @property
    def bytes(self) -> int:
        return sum(kept.bytes for kept in self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, tokens: list[int], scope: str = "") -> int:
        """How many of the tokens, from the first, can be had without computing."""
        return max((kept.shared(tokens, scope) for kept in self._kept), default=0)

    def take(self, tokens: list[int], scope: str = "") -> tuple[Cache | None, int]:
        """A cache of the longest beginning of the tokens that is kept, and its length. (None, 0) where there is none."""
        length = self.find(tokens, scope)
        if not length:
            return None, 0
        longest = next(kept for kept in self._kept if kept.shared(tokens, scope) == length)
        self._kept.remove(longest)
        self._kept.append(longest)
        return cut(longest.cache, len(longest.tokens), length), length

    def keep(self, tokens: list[int], cache: Cache, scope: str = "") -> None:
        """Keep a sequence, and none that is but a beginning of it. Raises RuntimeError, which may be of other work of the batch."""
        if not self._most or not tokens:
            return
        mx.eval([layer.state for layer in cache])  # else it would hold on to the batch that it is to be cut from
        if can_trim_prompt_cache(cache):
            self._kept = [kept for kept in self._kept if kept.scope != scope or common_prefix(kept.tokens, tokens) < len(kept.tokens)]
        self._kept.append(_Kept(tokens, cache, scope))
        while len(self._kept) > self._most or self.bytes > self._most_bytes:
            self.drop_oldest()

    def drop_oldest(self) -> None:
        self._kept.pop(0)

    def clear(self) -> None:
        self._kept.clear()


def cut(cache: Cache, length: int, wanted: int) -> Cache:
    """A copy of a cache of `length` tokens for the first `wanted` of them. The arrays are shared till one is written to."""
    assert usable(cache, length, wanted) == wanted
    cache = copy.deepcopy(cache)
    if wanted < length:
        trim_prompt_cache(cache, length - wanted)
    return cache


def usable(cache: Cache, length: int, common: int) -> int:
    """Of `common` tokens, those a cache of `length` can serve: a window that has moved on, or a recurrent state, cannot be cut."""
    return common if common == length or can_trim_prompt_cache(cache) else 0
