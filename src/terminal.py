"""Standard error that never keeps its writer waiting. Knows nothing of what is written; imports neither ssl nor asyncio.

Where it is a pipe whose reader has stopped, a write would wait for it for ever, and with it all streams of a gateway worker.
A line that does not fit is dropped instead, and the next one that does is preceded by how many were.
"""

import os
import select
import sys
from typing import Any

PIPE_BYTES = select.PIPE_BUF  # POSIX: a pipe that is ready takes so many bytes without waiting. Linux 4096, macOS 512

_dropped = 0


def say(text: str) -> None:
    """One or more whole lines to standard error, or nothing. Raises no OSError."""
    global _dropped
    try:
        stream = sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):  # a test's, or none
        print(text, file=sys.stderr, flush=True)
        return
    told = f"({_dropped} lines were dropped: nobody read them)\n" if _dropped else ""
    data = f"{told}{text}\n".encode(errors="backslashreplace")
    while data:
        if not _takes(stream):
            _dropped += 1
            return
        try:
            data = data[os.write(stream, data[:PIPE_BYTES]) :]
        except OSError:  # nobody is there to read it any more
            return
        if told:
            _dropped, told = 0, ""


class Stream:
    """For a logging.StreamHandler."""

    def write(self, text: str) -> None:
        if text.strip("\n"):
            say(text.rstrip("\n"))

    def flush(self) -> None:
        pass


def _takes(stream: int) -> bool:
    """Asked of the kernel itself: gevent's poll would let other greenlets run in the middle of a line."""
    monkey = sys.modules.get("gevent.monkey")
    real: Any = monkey.get_original("select", "poll") if monkey else select.poll
    poll = real()
    poll.register(stream, select.POLLOUT)
    return any(events & (select.POLLOUT | select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0))
