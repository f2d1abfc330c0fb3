"""Counts what holders (a key, an address) use: requests and tokens of the last minute, sequences that run. In this process, or in
Redis for all workers and instances.

The library `limits` counts requests in a moving window, never more than the limit in any 60 seconds; and tokens, which are known
only when they are used, in a window of 60 seconds that begins with its first tokens and may end in debt.
"""

import time
import uuid
from collections import Counter
from typing import Any, NamedTuple

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

REDIS_SECONDS = 0.5  # to connect, and to be answered: a request waits no longer for its limits
_REQUESTS, _TOKENS = "requests", "tokens"

# A sorted set of places by the end of their lease: one that is not given back, because its worker was killed, ends by itself.
_ENTER = """
local now = redis.call('TIME')[1]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) + #ARGV - 2 > tonumber(ARGV[1]) then return 0 end
for place = 3, #ARGV do redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[place]) end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""


class Window(NamedTuple):
    """What is left of a limit, and in how many seconds there is more."""

    limit: int
    left: int
    reset: float


class Lease(NamedTuple):
    """Places of one request, one for each sequence."""

    id: str
    places: int

    @property
    def names(self) -> list[str]:
        return [f"{self.id}-{place}" for place in range(self.places)]


class Counters:
    def __init__(self, address: str, lease: float) -> None:
        """`address`: RATE_LIMIT_STORAGE; `lease`: seconds after which a request that runs is given up for lost. Connects to nothing yet."""
        self._lease = int(lease)
        self._running: Counter[str] = Counter()
        self._redis: Any = None
        self.failures: tuple[type[Exception], ...] = ()  # what any method may raise when Redis is out of reach, or holds nonsense
        storage: MemoryStorage | RedisStorage
        if address == "memory":
            storage = MemoryStorage()
        else:
            from redis.backoff import NoBackoff  # only here: without Redis it is not needed
            from redis.exceptions import RedisError
            from redis.retry import Retry

            options: dict[str, Any] = {
                "socket_timeout": REDIS_SECONDS,
                "socket_connect_timeout": REDIS_SECONDS,
                "retry": Retry(NoBackoff(), 0),
                "max_connections": 10_000,  # a greenlet that waits holds one
            }
            storage = RedisStorage(address, key_prefix="llm-inference", **options)
            self._redis = storage.get_connection()
            self._enter_script = self._redis.register_script(_ENTER)
            self.failures = (RedisError, OSError, ValueError)  # ValueError: a value that is no number
        self._requests = MovingWindowRateLimiter(storage)
        self._tokens = FixedWindowRateLimiter(storage)

    def take_request(self, holder: str, limit: int) -> tuple[bool, Window]:
        """Count a request, if the limit allows it."""
        item = RateLimitItemPerMinute(limit)
        taken = self._requests.hit(item, _REQUESTS, holder)
        return taken, _window(limit, *self._requests.get_window_stats(item, _REQUESTS, holder))

    def tokens(self, holder: str, limit: int) -> Window:
        return _window(limit, *self._tokens.get_window_stats(RateLimitItemPerMinute(limit), _TOKENS, holder))

    def add_tokens(self, holder: str, limit: int, number: int) -> None:
        self._tokens.hit(RateLimitItemPerMinute(limit), _TOKENS, holder, cost=number)

    def enter(self, holder: str, limit: int, places: int = 1) -> Lease | None:
        """A lease for sequences that begin to run; None where it would be more than the limit."""
        lease = Lease(uuid.uuid4().hex, places)
        if self._redis is not None:
            return lease if self._enter_script([_set_of(holder)], [limit, self._lease, *lease.names]) else None
        if self._running[holder] + places > limit:
            return None
        self._running[holder] += places
        return lease

    def leave(self, holder: str, lease: Lease) -> None:
        if self._redis is not None:
            self._redis.zrem(_set_of(holder), *lease.names)
        elif self._running[holder] > lease.places:
            self._running[holder] -= lease.places
        else:
            del self._running[holder]


def _window(limit: int, reset_at: float, left: int) -> Window:
    left = max(0, left)
    return Window(limit, left, 0.0 if left == limit else max(0.0, reset_at - time.time()))


def _set_of(holder: str) -> str:
    return f"llm-inference:running:{holder}"
