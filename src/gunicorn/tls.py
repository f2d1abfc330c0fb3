"""TLS handshakes that end: in a bounded time, and without a traceback for each client that speaks something else.

Imported in a worker, after gevent has patched ssl.
"""

import ssl
from typing import Any

import gevent
from loguru import logger

HANDSHAKE_SECONDS = 10.0


class _Bounded(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        try:
            with gevent.Timeout(HANDSHAKE_SECONDS, TimeoutError):
                super().do_handshake()
        except OSError as error:  # ssl.SSLError is one
            logger.debug("A TLS handshake failed: {}", error)
            self.close()
            raise gevent.GreenletExit from error  # ends the connection's greenlet, and nothing else


def bounded(context: Any) -> Any:
    """The context, for sockets whose handshakes are so."""
    context.sslsocket_class = _Bounded
    return context
