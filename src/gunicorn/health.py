"""A socket in RUN_DIR beside the one for clients: however many of those there are, the manager learns whether the workers answer.

Made by the master, before it forks; each worker serves it. No ssl and no gevent before a worker imports them.
"""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

PLACES = 8  # connections at a time
LOOK_SECONDS = 5.0  # between two looks whether the path still leads to a socket

_listener: socket.socket | None = None
_path, _file = "", 0  # where it was made, and the number of its file there


def listen(run_dir: str) -> None:
    """In the master. `run_dir` is private."""
    global _listener, _path, _file
    _path = os.path.join(run_dir, "health.sock")
    with suppress(FileNotFoundError):
        os.unlink(_path)
    _listener = socket.socket(socket.AF_UNIX)
    _bind(_listener)
    _file = os.stat(_path).st_ino


def serve(handle: Callable[[Any, Any, Any], None]) -> None:
    """In a worker. `handle`: Gunicorn's, of a listener, a connection and its address."""
    import gevent
    from gevent import socket as patched
    from gevent.pool import Pool
    from gevent.server import StreamServer

    if _listener is None:
        return
    places = Pool(PLACES)

    def start(own: Any) -> None:
        StreamServer(own, handle=lambda client, address: handle(own, client, address), spawn=places).start()

    def keep() -> None:
        """Where a system's cleaning of old files took the path, one of the workers makes a socket of its own there."""
        while True:
            gevent.sleep(LOOK_SECONDS)
            if not (_is_the_masters() or _answers(patched.socket(socket.AF_UNIX))):
                own = patched.socket(socket.AF_UNIX)
                with suppress(OSError):  # another worker was quicker
                    _bind(own)
                    start(own)

    start(patched.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=_listener.detach()))
    gevent.spawn(keep)


def _is_the_masters() -> bool:
    with suppress(OSError):
        return os.stat(_path).st_ino == _file
    return False


def _answers(probe: Any) -> bool:
    """Whether somebody listens at the path; what nobody listens on is removed."""
    with probe:
        try:
            probe.connect(_path)
        except ConnectionRefusedError:  # of a worker that has ended
            with suppress(OSError):
                os.unlink(_path)
            return False
        except FileNotFoundError:
            return False
        except OSError:  # all its places are taken
            return True
        return True


def _bind(listener: Any) -> None:
    """Raises OSError."""
    listener.bind(_path)
    os.chmod(_path, 0o600)
    listener.listen(PLACES)
