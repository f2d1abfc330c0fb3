"""Has this HTTP client hung up? Asked without waiting, over TLS too, and without taking a byte from its connection."""

import select
import socket
import sys
from typing import Any

_END_OF_FILE = getattr(select, "POLLRDHUP", select.POLLHUP)  # macOS has no POLLRDHUP and reports POLLHUP, but only if asked


def has_hung_up(client: socket.socket) -> bool:
    """A half-close counts, as with nginx. Bytes that wait are the client's next request, and hide a hang-up after them."""
    poll = _kernel_poll()
    poll.register(client, select.POLLIN | _END_OF_FILE)
    flags = sum(flags for _, flags in poll.poll(0))
    if not flags:
        return False
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except ValueError:  # TLS: its bytes cannot be peeked at, and may be no more than its farewell. Only the kernel knows what follows
        return bool(flags & (_END_OF_FILE | select.POLLHUP | select.POLLERR))
    except OSError:
        return True


def _kernel_poll() -> "select.poll":
    """The kernel's own poll. gevent's, which replaces it, reports no hang-ups. Only for polls that do not wait."""
    monkey = sys.modules.get("gevent.monkey")
    kernel_poll: Any = monkey.get_original("select", "poll") if monkey else select.poll
    poll: select.poll = kernel_poll()
    return poll
