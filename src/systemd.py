"""Messages to systemd, as sd_notify(3) sends them: one datagram each. Knows nothing of what they say.

Where there is no systemd, the manager may get an open socket of the master's in its place (NOTIFY_FD).

The socket is taken out of the environment: Gunicorn would say READY=1 before there is a worker, and what the service starts
has nothing to tell. Imported by the master: no ssl, no asyncio.
"""

import contextlib
import os
import socket


class Notifier:
    """Does nothing where the service was not started by systemd, with Type=notify, and the master does not listen either."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        self._inherited = os.environ.pop("NOTIFY_FD", "")

    def __bool__(self) -> bool:
        return bool(self._address or self._inherited)

    def environ(self) -> dict[str, str]:
        """For the one child that has something to tell too."""
        return {"NOTIFY_SOCKET": self._address} if self._address else {}

    def send(self, *assignments: str) -> None:
        """READY=1, STATUS=..., WATCHDOG=1 and their like. A systemd that does not listen is no reason to stop."""
        message = "\n".join(assignments).encode()
        if self._inherited:
            with contextlib.suppress(OSError):  # it does not block: where the master hangs, nobody takes messages
                os.write(int(self._inherited), message)
        if not self._address:
            return
        # "@" is the name of a socket without a file, which begins with a null byte.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.connect(address)
                sender.sendall(message)
        except OSError:
            pass
