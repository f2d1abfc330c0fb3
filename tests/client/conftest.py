"""A socket for the other side, the HTTP client's two ends, and a look at what is left open."""

import socket
from pathlib import Path

import pytest

from src.client.exchange import Exchange


@pytest.fixture(autouse=True)
def nothing_left_open():
    yield
    assert Exchange.open == set()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "peer.sock"


@pytest.fixture
def http():
    """The HTTP client's two ends: ours and its own."""
    ours, its = socket.socketpair()
    with ours, its:
        yield ours, its
