"""What a gateway does when the server stops: refuses new requests, and ends the running ones when their time is over."""

from src.client import Exchange
from src.errors import ServerShuttingDown

_MESSAGE = "The server is shutting down."


class _State:
    stopping = False
    cut = False


def begin() -> None:
    """From now on every request but a health check gets a 503."""
    _State.stopping = True


def refuse_while_stopping() -> None:
    """Raises ServerShuttingDown for requests that come on connections still open."""
    if _State.stopping:
        raise ServerShuttingDown(_MESSAGE, retry_after=5)


def refuse_after_cut() -> None:
    """Raises ServerShuttingDown for a request whose exchange was lost before it could be told."""
    if _State.cut:
        raise ServerShuttingDown(_MESSAGE, retry_after=5)


def cut() -> None:
    """End what still runs: each gets an error that says why."""
    _State.cut = True
    for exchange in list(Exchange.open):
        exchange.abort(ServerShuttingDown(_MESSAGE, retry_after=5))
