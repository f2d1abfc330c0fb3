"""A connection whose client always has more to say leaves others their turn."""

import errno

import gevent
import pytest
from gevent import socket

from src.gunicorn.connection import Connection, Times

pytestmark = pytest.mark.macos


def test_whoever_reads_what_has_come_already_lets_others_have_their_turn():
    ours, clients = socket.socketpair()
    with ours, clients:
        clients.sendall(b"abc")
        connection = Connection(ours, Times(header=1, keepalive=1, send=1), "")
        turns: list[str] = []
        gevent.spawn(turns.append, "head")
        with connection:
            assert connection.recv(1) == b"a"
        assert turns == ["head"]
        gevent.spawn(turns.append, "body")
        assert connection.recv(1) == b"b"
        assert turns == ["head", "body"]


class Ending:
    """A TCP socket of macOS whose peer is just gone."""

    family = socket.AF_INET

    def __init__(self, failure: int) -> None:
        self._failure = failure

    def setsockopt(self, *_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    def send(self, data: bytes, flags: int) -> int:
        raise OSError(self._failure, "said of a connection")


def test_a_client_that_is_gone_before_it_is_served_is_no_failure_of_ours():
    Connection(Ending(errno.EPIPE), Times(header=1, keepalive=1, send=1), "")


@pytest.mark.parametrize(("failure", "kind"), [(errno.EPROTOTYPE, ConnectionResetError), (errno.ENOBUFS, OSError)])
def test_a_client_that_goes_while_it_is_answered_is_gone_whatever_the_system_says(failure, kind):
    connection = Connection(Ending(failure), Times(header=1, keepalive=1, send=1), "")
    with pytest.raises(OSError, match="client is gone" if kind is ConnectionResetError else "said of a connection") as raised:
        connection.sendall(b"x")
    assert type(raised.value) is kind
