"""Only the server's own user is answered on its private sockets, and only that user is sent a prompt, whatever modes the files have."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from src.api.observe.reporter import Reporter
from src.client.exchange import Exchange
from src.client.manager import ManagerClient
from src.errors import EngineUnavailable
from src.manager.runner_process import _ask
from src.peer import require_same_user
from src.protocol import AskStatus, TokenGaps
from src.protocol.listen import Connected, UnixServer

ANOTHER = os.geteuid() + 1


@pytest.fixture
def path(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)  # a socket's path may not be long
    return "manager.sock"


@pytest.fixture
def as_another(monkeypatch):
    """Makes this process take itself for another user's: whoever it talks to is then not its own."""
    return lambda: monkeypatch.setattr(os, "geteuid", lambda: ANOTHER)


def test_both_ends_are_told_apart_by_the_kernel(path, as_another):
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        client.connect(path)
        accepted, _ = listener.accept()
        with accepted:
            for end in (client, accepted):
                require_same_user(end)
            as_another()
            for end in (client, accepted):
                with pytest.raises(PermissionError, match=f"another user \\(uid {ANOTHER - 1}\\)"):
                    require_same_user(end)


def test_a_connection_that_is_not_there_any_more_is_nobodys():
    with pytest.raises(PermissionError):
        require_same_user(None)


def test_nothing_is_sent_to_a_socket_of_another_user(path, as_another):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        as_another()
        with pytest.raises(PermissionError):
            Exchange(path, AskStatus(detail=False), time.monotonic() + 5)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(1000) == b""


def test_a_manager_of_another_user_is_one_that_cannot_be_reached(path, as_another, monkeypatch):
    monkeypatch.setattr("src.client.manager.STATUS_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        as_another()
        with pytest.raises(EngineUnavailable):
            ManagerClient(path).status()


def test_a_gateway_tells_nothing_to_a_manager_of_another_user(path, as_another):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        as_another()
        Reporter("").send(TokenGaps(model="m", seconds=[0.1]))
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(1000) == b""


def test_a_manager_asks_no_runner_of_another_user(path, as_another):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        as_another()
        with pytest.raises(PermissionError):
            asyncio.run(asyncio.wait_for(_ask(path), 5))


@contextlib.asynccontextmanager
async def serving(path: str, connected: Connected):
    server = UnixServer(path, connected)
    await server.start()
    yield
    server.close()


async def ask(path: str) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(b"hello\n")
        return await reader.read()
    except ConnectionError:  # closed before it had read what came
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def test_a_listener_closes_the_connection_of_another_user_unread(path, as_another):
    heard = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readline())
        writer.write(b"answer")
        writer.close()

    async def main() -> None:
        async with serving(path, connected):
            assert await ask(path) == b"answer"
            as_another()
            assert await ask(path) == b""

    asyncio.run(main())
    assert heard == [b"hello\n"]


AS_NOBODY = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
try:
    connection.sendall(b"hello\\n")
    print("heard", connection.recv(100))
except ConnectionError:
    print("closed")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; the other tests here need no second user")
def test_a_process_that_runs_as_nobody_gets_no_answer_even_where_it_may_open_the_socket():
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"answer")
        writer.close()

    async def main(folder: str) -> bytes:
        path = f"{folder}/s"
        async with serving(path, connected):
            os.chmod(path, 0o777)
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", AS_NOBODY, path, stdout=subprocess.PIPE)
            return (await process.communicate())[0].strip()

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        assert asyncio.run(main(folder)) in (b"closed", b"heard b''")
