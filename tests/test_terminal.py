"""Standard error that nobody reads keeps no writer waiting, by the rules of Linux and of macOS."""

import array
import fcntl
import os
import select
import sys
import termios
import threading

import pytest

from src import terminal

pytestmark = pytest.mark.macos

MACOS_PIPE_BUF = 512
CAPACITY = 4096


@pytest.fixture
def pipe():
    """Both ends of a pipe of one page."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, CAPACITY)
    with os.fdopen(reader, "rb", buffering=0) as read_end, os.fdopen(writer, "wb", buffering=0) as write_end:
        yield read_end, write_end


def free_bytes(reader) -> int:
    waiting = array.array("i", [0])
    fcntl.ioctl(reader, termios.FIONREAD, waiting)
    return CAPACITY - waiting[0]


def test_a_piece_is_what_this_systems_pipes_take_at_once():
    assert terminal.PIPE_BYTES == select.PIPE_BUF


@pytest.mark.skipif(sys.platform != "linux", reason="sets the size of a pipe")
def test_a_pipe_that_is_ready_with_little_room_keeps_nobody_waiting(pipe, monkeypatch):
    """XNU calls a pipe ready from PIPE_BUF free bytes on; Linux waits for a free page."""
    reader, writer = pipe
    monkeypatch.setattr(sys, "stderr", writer)
    monkeypatch.setattr(terminal, "PIPE_BYTES", MACOS_PIPE_BUF)
    monkeypatch.setattr(terminal, "_takes", lambda stream: free_bytes(reader) >= MACOS_PIPE_BUF)
    monkeypatch.setattr(terminal, "_dropped", 0)
    writer.write(b"x" * (CAPACITY - 600))
    said = threading.Thread(target=terminal.say, args=("y" * 2000,))
    said.start()
    said.join(5)
    stuck = said.is_alive()
    reader.read(CAPACITY)
    said.join(5)
    assert not stuck
    assert terminal._dropped == 1
