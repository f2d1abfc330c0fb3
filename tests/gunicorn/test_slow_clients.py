"""Clients that send a byte a second, or nothing at all: they are told so in time, and nobody waits for them."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.raw_http import ask, closed_within, connect, parsed, post
from tests.support.server import Server, wait_until

pytestmark = pytest.mark.slow

HEADERS, BODY, KEEPALIVE = 3, 2, 1
MANY = 150
SOON = 5  # seconds; a request takes 20 ms where nobody else computes


@pytest.fixture(scope="module")
def server():
    times = {"HEADER_TIMEOUT": HEADERS, "BODY_TIMEOUT": BODY, "KEEPALIVE_TIMEOUT": KEEPALIVE}
    with Server(INFERENCE_ENGINE="echo", MAX_BODY_BYTES=100_000, disposable=True, **times) as server:
        yield server


@contextlib.contextmanager
def trickling(clients: list[socket.socket], byte: bytes) -> Iterator[None]:
    """Each of them sends such a byte again and again."""
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(0.2):
            for client in clients:
                with contextlib.suppress(OSError):
                    client.send(byte)

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def answered_soon(server: Server) -> None:
    began = time.monotonic()
    assert server.client().completions.create(model="echo", prompt="abc", max_tokens=3).choices[0].text == "abc"
    assert time.monotonic() - began < SOON


def held(server: Server, beginning: bytes) -> list[socket.socket]:
    clients = [connect(server.port) for _ in range(MANY)]
    for client in clients:
        client.sendall(beginning)
    return clients


def healthy(client: socket.socket, request: bytes = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n") -> bool:
    client.sendall(request)
    return answer_on(client).startswith(b"HTTP/1.1 200")


def answer_on(client: socket.socket) -> bytes:
    """One whole answer, on a connection that stays open."""
    client.settimeout(BODY + 20)
    answer = b""
    while not answer.endswith(b"}"):
        data = client.recv(65536)
        assert data, answer
        answer += data
    return answer


def test_headers_that_trickle_in_are_told_that_they_took_too_long(server):
    with connect(server.port) as client:
        began = time.monotonic()
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        with trickling([client], b"a"):
            answer = closed_within(client, HEADERS + 20)
    response = parsed(answer)
    assert (response.status_code, response.json()["error"]["code"]) == (408, "request_header_timeout")
    assert "HEADER_TIMEOUT" in response.json()["error"]["message"]
    assert time.monotonic() - began > HEADERS - 0.5


def test_a_first_byte_gives_no_more_time_than_headers_have(server):
    with connect(server.port) as client:
        client.sendall(b"G")
        assert parsed(closed_within(client, HEADERS + 20)).json()["error"]["code"] == "request_header_timeout"


def test_who_connects_and_says_nothing_is_sent_away(server):
    with connect(server.port) as client:
        assert closed_within(client, HEADERS + 20) == b""


def test_an_idle_connection_is_closed_and_one_that_asks_is_not(server):
    with connect(server.port) as client:
        for _ in range(3):  # longer in all than it may be idle
            assert healthy(client)
            time.sleep(KEEPALIVE / 2)
        began = time.monotonic()
        assert closed_within(client, KEEPALIVE + 20) == b""
        assert time.monotonic() - began < HEADERS  # it is not taken for headers that are on their way


def test_the_next_request_on_a_connection_has_the_time_that_headers_have(server):
    with connect(server.port) as client:
        assert healthy(client)
        client.sendall(b"GET /health HTTP/1.1\r\n")
        time.sleep(KEEPALIVE * 1.5)
        assert healthy(client, b"Host: localhost\r\n\r\n")


def test_many_headers_that_trickle_in_keep_nobody_waiting(server):
    clients = held(server, b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
    with trickling(clients, b"a"):
        answered_soon(server)
    for client in clients:
        client.close()


def test_many_bodies_that_trickle_in_keep_nobody_waiting_and_are_told(server):
    clients = held(server, post("/v1/completions", b"", framing="Content-Length: 1000"))
    with trickling(clients, b" "):
        answered_soon(server)
        codes = [parsed(answer_on(client)).json()["error"]["code"] for client in clients]
    assert codes == ["request_body_timeout"] * MANY
    for client in clients:
        client.close()
    wait_until(lambda: server.status()["requests"]["waiting"] == 0)


@pytest.mark.parametrize(
    ("data", "status", "code", "told"),
    [
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "uri_too_long", "4094 bytes that MAX_REQUEST_LINE"),
        (b"GET /health HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431, "headers_too_large", "8190 bytes of MAX_HEADER_BYTES"),
        (b"GET /health HTTP/1.1\r\n" + b"X: a\r\n" * 101 + b"\r\n", 431, "headers_too_large", "100 that MAX_HEADERS"),
        (b"GET /health HTTP/1.1\r\nX: " + b"a" * 3_000_000, 431, "headers_too_large", "MAX_HEADER_BYTES"),
    ],
    ids=["line", "header", "headers", "a header without an end"],
)
def test_a_head_that_is_too_large_is_answered_with_the_settings_name(server, data, status, code, told):
    response = parsed(ask(server.port, data))
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert told in response.json()["error"]["message"]


def test_the_limits_of_heads_are_the_settings():
    settings = {"MAX_REQUEST_LINE": 300, "MAX_HEADERS": 12, "MAX_HEADER_BYTES": 400}
    with Server(INFERENCE_ENGINE="echo", disposable=True, **settings) as small:
        for data, told in (
            (b"GET /" + b"a" * 300 + b" HTTP/1.1\r\n\r\n", "300 bytes that MAX_REQUEST_LINE"),
            (b"GET /health HTTP/1.1\r\nX: " + b"a" * 400 + b"\r\n\r\n", "400 bytes of MAX_HEADER_BYTES"),
            (b"GET /health HTTP/1.1\r\n" + b"X: a\r\n" * 13 + b"\r\n", "12 that MAX_HEADERS"),
        ):
            assert told in parsed(ask(small.port, data)).json()["error"]["message"]


def test_a_refused_body_without_an_end_is_not_read_for_ever(server):
    with connect(server.port) as client:
        client.sendall(post("/v1/completions", b"", framing="Content-Length: 100000000000"))
        began, sent = time.monotonic(), 0
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while time.monotonic() - began < HEADERS + 20:
                sent += client.send(b" " * 65536)
        assert time.monotonic() - began < HEADERS + 15
    assert sent < 100 * 2**20
    answered_soon(server)
