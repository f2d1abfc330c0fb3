"""Unix sockets hold as much as a stream needs, also where the system gives them little."""

import asyncio
import socket

import pytest

from src.api.observe.reporter import Reporter
from src.client.exchange import Exchange
from src.protocol import AskStats, RequestEnded, buffers
from src.protocol.buffers import BYTES, widen
from src.protocol.listen import UnixServer
from tests.support.peer import Peer, sends, soon

pytestmark = pytest.mark.macos

BOTH = (socket.SO_SNDBUF, socket.SO_RCVBUF)


def sizes(connection: socket.socket) -> list[int]:
    return [connection.getsockopt(socket.SOL_SOCKET, option) for option in BOTH]


def test_small_buffers_become_larger_and_large_ones_stay():
    for given in (4096, 4 * BYTES):
        one, other = socket.socketpair()
        with one, other:
            for option in BOTH:
                one.setsockopt(socket.SOL_SOCKET, option, given)
            before = sizes(one)
            widen(one)
            assert min(sizes(one)) >= BYTES
            if min(before) >= BYTES:
                assert sizes(one) == before


def test_a_system_that_allows_no_more_is_left_with_its_own():
    class Refusing:
        def getsockopt(self, level: int, option: int, /) -> int:
            return 8192

        def setsockopt(self, level: int, option: int, value: int, /) -> None:
            raise OSError(55, "No buffer space available")

    widen(Refusing())


@pytest.fixture
def usual(monkeypatch) -> int:
    """What this system gives, which from here on is too little."""
    with socket.socket(socket.AF_UNIX) as one:
        usual = max(sizes(one))
    monkeypatch.setattr(buffers, "BYTES", usual + 1)
    return usual


def test_who_asks_has_such_a_socket(usual, tmp_path):
    with Peer(tmp_path / "peer.sock", sends()) as peer:
        exchange = Exchange(peer.path, AskStats(), soon())
        assert min(sizes(exchange._socket)) > usual
        exchange.close()


def test_who_answers_has_one_too(usual, tmp_path):
    async def run() -> list[int]:
        found: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.set_result(sizes(writer.get_extra_info("socket")))
            writer.close()

        server = UnixServer(str(tmp_path / "server.sock"), connected)
        await server.start()
        _, writer = await asyncio.open_unix_connection(str(tmp_path / "server.sock"))
        try:
            return await asyncio.wait_for(found, 10)
        finally:
            writer.close()
            server.close()

    assert min(asyncio.run(run())) > usual


def test_and_who_tells_the_manager_of_its_requests(usual, tmp_path):
    path = tmp_path / "manager.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        reporter = Reporter(str(tmp_path))
        reporter.send(RequestEnded(route="/", status=200, seconds=0.0))
        assert min(sizes(reporter._socket)) > usual
        reporter._disconnect()
