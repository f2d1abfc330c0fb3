"""What a gateway does when the server stops: refuses new requests, and ends the running ones when their time is over."""

import math
import time

from src.client import Exchange
from src.errors import ServerShuttingDown

LONGEST_WAIT = 120  # seconds: SDKs do not try again by themselves where they are told more
_MESSAGE = "The server is shutting down."


class _State:
    stopping = False
    cut = False
    ends_at = 0.0  # in time.monotonic() seconds


def begin(grace: float) -> None:
    """From now on every request but a health check gets a 503. `grace`: seconds that the running ones have."""
    _State.stopping, _State.ends_at = True, time.monotonic() + grace


def refuse_while_stopping() -> None:
    """Raises ServerShuttingDown for requests that come on connections still open."""
    if _State.stopping:
        raise _refusal()


def refuse_after_cut() -> None:
    """Raises ServerShuttingDown for a request whose exchange was lost before it could be told."""
    if _State.cut:
        raise _refusal()


def cut() -> None:
    """End what still runs: each gets an error that says why."""
    _State.cut = True
    for exchange in list(Exchange.open):
        exchange.abort(_refusal())


def _refusal() -> ServerShuttingDown:
    """Not before the grace is over can another server be here."""
    left = 1 if _State.cut else _State.ends_at - time.monotonic()
    return ServerShuttingDown(_MESSAGE, retry_after=max(1, min(LONGEST_WAIT, math.ceil(left))))
