"""TLS handshakes that end: in a bounded time, and without a traceback for each client that speaks something else.

Imported in a worker, after gevent has patched ssl.
"""

import ssl
from typing import Any

import gevent
from loguru import logger

from src.gunicorn.crowd import Waiter, crowd

HANDSHAKE_SECONDS = 10.0


class _Bounded(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        try:
            network = crowd.enter(self.getpeername())
            if network is None:
                raise ConnectionRefusedError("its address has as many connections as MAX_CONNECTIONS_PER_ADDRESS allows")
            with Waiter(network, ConnectionAbortedError), gevent.Timeout(HANDSHAKE_SECONDS, TimeoutError):
                super().do_handshake()
        except OSError as error:  # ssl.SSLError is one
            logger.debug("A TLS handshake failed: {}", error)
            self.close()
            raise gevent.GreenletExit from error  # ends the connection's greenlet, and nothing else


def bounded(context: Any) -> Any:
    """The context, for sockets whose handshakes are so."""
    context.sslsocket_class = _Bounded
    return context
