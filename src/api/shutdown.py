"""What a gateway does when the server stops: refuses new requests, and ends the running ones when their time is over."""

import time

from src.client.exchange import Exchange
from src.errors import ServerShuttingDown
from src.protocol import retry_after_seconds

_MESSAGE = "The server is shutting down."


class _State:
    stopping = False
    cut = False
    ends_at = 0.0  # in time.monotonic() seconds


def begin(grace: float) -> None:
    """From now on every request gets a 503. `grace`: seconds that the running ones have."""
    _State.stopping, _State.ends_at = True, time.monotonic() + grace


def refuse_while_stopping() -> None:
    """Raises ServerShuttingDown for requests that come on connections still open."""
    if _State.stopping:
        raise _refusal()


def cut() -> None:
    """End what still runs: each request gets an error that says why."""
    _State.cut = True
    Exchange.refuse_all(_refusal)


def _refusal() -> ServerShuttingDown:
    """Not before the grace is over can another server be here."""
    left = 1 if _State.cut else _State.ends_at - time.monotonic()
    return ServerShuttingDown(_MESSAGE, retry_after=retry_after_seconds(left))
