"""Pieces of bytes over the pipes of a process that a runner has started, each behind its length. Knows nothing of what they say."""

import os
import select
import time

LONGEST = 1 << 31


def send(pipe: int, data: bytes) -> None:
    """Raises BrokenPipeError where the other side is gone."""
    left = memoryview(len(data).to_bytes(4, "big") + data)
    while left:
        left = left[os.write(pipe, left) :]


def receive(pipe: int, deadline: float | None = None, most: int = LONGEST) -> bytes:
    """Raises EOFError where the other side is gone, or promises more than `most` bytes; TimeoutError at the deadline, in
    time.monotonic() seconds."""
    size = int.from_bytes(_read(pipe, 4, deadline), "big")
    if size > most:
        raise EOFError
    return _read(pipe, size, deadline)


def _read(pipe: int, size: int, deadline: float | None) -> bytes:
    data = bytearray()
    while len(data) < size:
        if deadline is not None and not _readable(pipe, deadline - time.monotonic()):
            raise TimeoutError
        part = os.read(pipe, size - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def _readable(pipe: int, seconds: float) -> bool:
    """By poll: select takes no descriptor past 1,023."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))
