"""In the master: whether requests are answered, by what the manager would tell systemd's watchdog. For launchd, which has none.

The manager asks the workers as a client would, so its silence means that the workers or the manager hang. Imported by the master: no
ssl, no asyncio.
"""

import socket
import time

LONGEST_LOOK = 5.0  # seconds that may count between two looks: after a pause of the whole machine nobody was silent


class Watchdog:
    def __init__(self, seconds: float) -> None:
        """`seconds` without a sign of life are a hang; 0: nothing is."""
        self._seconds = seconds
        self._silent: float | None = None  # seconds since the last sign of life; None before the first
        self._looked_at = time.monotonic()
        # Without a path: a system's cleaning of old files must not look like a hang.
        self._ours, self._managers = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ours.setblocking(False)
        self._managers.setblocking(False)

    def environ(self) -> dict[str, str]:
        """For the manager, as systemd would give it."""
        return {"NOTIFY_FD": str(self._managers.fileno()), "WATCHDOG_USEC": str(int(self._seconds * 1e6))} if self._seconds else {}

    def descriptors(self) -> tuple[int, ...]:
        """That the manager has to inherit."""
        return (self._managers.fileno(),) if self._seconds else ()

    def hangs(self) -> bool:
        """To be asked about once a second."""
        now = time.monotonic()
        passed, self._looked_at = min(LONGEST_LOOK, now - self._looked_at), now
        if self._hears_a_sign_of_life():
            self._silent = 0.0
        elif self._silent is not None:
            self._silent += passed
        return bool(self._seconds) and self._silent is not None and self._silent > self._seconds

    def close(self) -> None:
        self._ours.close()
        self._managers.close()

    def _hears_a_sign_of_life(self) -> bool:
        heard = False
        try:
            while message := self._ours.recv(4096):
                heard |= b"WATCHDOG=1" in message.splitlines()
        except OSError:  # no more messages
            pass
        return heard
