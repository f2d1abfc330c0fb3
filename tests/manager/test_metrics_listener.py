"""The metrics at an address of their own: whoever connects there and says nothing costs little, and keeps nobody out."""

import asyncio
import contextlib

import pytest

from src.manager.metrics import listener as module
from src.manager.metrics.listener import PLACES, Listener
from tests.support.server import free_port

pytestmark = pytest.mark.macos

QUESTION = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def text() -> str:
    return "llm_up 1\n"


async def ended(reader: asyncio.StreamReader) -> bytes:
    with contextlib.suppress(ConnectionResetError):
        return await reader.read()
    return b""


async def asked(port: int, question: bytes = QUESTION) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(question)
    with contextlib.closing(writer):
        return await ended(reader)


def run(test) -> None:
    async def main() -> None:
        port = free_port()
        listener = Listener(text, {"metrics.lan"})
        await listener.bind("127.0.0.1", port)
        with contextlib.closing(listener):
            await asyncio.wait_for(test(port), 10)

    asyncio.run(main())


def test_silent_connections_give_way_to_those_that_ask():
    async def test(port: int) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3 * PLACES)]
        assert (await asked(port)).endswith(b"\r\n\r\nllm_up 1\n")
        for reader, _ in silent[: 2 * PLACES]:
            assert await ended(reader) == b""
        for _, writer in silent:
            writer.close()

    run(test)


@pytest.mark.parametrize("said", [b"", b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 100_000])
def test_a_connection_ends_in_time_and_its_head_has_a_bound(said, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.05)

    async def test(port: int) -> None:
        assert await asked(port, said) == b""

    run(test)


def test_only_get_is_answered():
    async def test(port: int) -> None:
        assert (await asked(port, QUESTION.replace(b"GET", b"PUT"))).startswith(b"HTTP/1.1 405 ")

    run(test)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9101", "localhost.evil.example", "127.0.0.1.nip.io", "localhost\r\nhost : evil.example"]
)
def test_no_page_reads_them_by_a_name_that_was_made_to_lead_here(host):
    async def test(port: int) -> None:
        answer = await asked(port, QUESTION.replace(b"localhost", host.encode()))
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert b"llm_up" not in answer

    run(test)


@pytest.mark.parametrize("host", ["127.0.0.1:9101", "[::1]:9101", "LOCALHOST.", "x.localhost", "host.docker.internal", "metrics.lan"])
def test_this_machines_own_names_are_answered_and_those_that_are_allowed(host):
    async def test(port: int) -> None:
        assert (await asked(port, QUESTION.replace(b"localhost", host.encode()))).startswith(b"HTTP/1.1 200 ")

    run(test)
