"""The wait for a process that is gone, a runner or the manager: its successor is asked. The one place that decides how long."""

import socket
import time

from src.client.exchange import Unreachable
from src.client.hangup import has_hung_up
from src.errors import ClientGone, EngineUnavailable

MAX_LOST = 6  # processes that may die over one question before it is given up
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.25  # seconds


class Retry:
    """Of one question. While nobody is there to take it, only its deadline bounds the wait."""

    def __init__(self, deadline: float, client: socket.socket | None) -> None:
        """`deadline` in time.monotonic() seconds; `client`: the HTTP client's socket, to notice when it hangs up."""
        self._deadline, self._client = deadline, client
        self._lost, self._pause = 0, FIRST_PAUSE

    def wait(self, failure: EngineUnavailable | None = None) -> None:
        """Returns when it is time for the next try. Raises the failure of this one if there is to be none, and ClientGone."""
        self._lost += failure is not None and not isinstance(failure, Unreachable)
        if failure is not None and self._lost > MAX_LOST:
            raise failure
        if self._client is not None and has_hung_up(self._client):
            raise ClientGone
        time.sleep(max(0.0, min(self._pause, self._deadline - time.monotonic())))
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)
        if failure is not None and time.monotonic() >= self._deadline:
            raise failure
