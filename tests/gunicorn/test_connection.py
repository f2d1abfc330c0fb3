"""A connection whose client always has more to say leaves others their turn."""

import gevent
from gevent import socket

from src.gunicorn.connection import Connection, Times


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
