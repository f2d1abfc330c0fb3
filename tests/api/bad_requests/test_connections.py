"""What comes on one connection: requests behind each other, refused ones before good ones, and heads without an end."""

import contextlib
import time

import psutil
import pytest

from tests.support.raw_http import ask, connect, parsed, post
from tests.support.server import Server

GOOD = {"model": "echo", "prompt": "abc", "max_tokens": 3}
TOO_LARGE = b'{"prompt": "' + b"x" * 300_000 + b'"}'


@pytest.fixture(scope="module")
def server():
    with Server(INFERENCE_ENGINE="echo", MAX_BODY_BYTES=100_000, disposable=True) as server:
        yield server


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def test_requests_in_one_packet_are_answered_in_their_order(server):
    first, second = post("/v1/completions", GOOD), post("/v1/completions", {**GOOD, "prompt": "xyz"}, "Connection: close")
    answer = ask(server.port, first + second)
    assert statuses(answer) == [200, 200]
    assert answer.index(b'"abc"') < answer.index(b'"xyz"')


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (post("/v1/completions", b"{"), 400),
        (post("/v1/completions", {"prompt": 5}), 400),
        (post("/v1/nothing", GOOD), 404),
        (post("/v1/models", GOOD), 405),
        (post("/v1/completions", TOO_LARGE), 413),
        (post("/v1/completions", b"%x\r\n%b\r\n0\r\n\r\n" % (len(TOO_LARGE), TOO_LARGE), framing="Transfer-Encoding: chunked"), 413),
    ],
    ids=["no JSON", "a wrong field", "no route", "a wrong method", "too large", "too large in chunks"],
)
def test_a_good_request_behind_a_refused_one_is_answered_on_the_same_connection(server, bad, status):
    """The rest of the refused one's body is not taken for a request."""
    answer = ask(server.port, bad + post("/v1/completions", GOOD, "Connection: close"))
    assert statuses(answer) == [status, 200]


def test_a_connection_with_broken_http_is_closed_and_what_follows_is_not_looked_at(server):
    answer = ask(server.port, b"GET /health HTTP/9.9\r\n\r\n" + post("/v1/completions", GOOD))
    assert statuses(answer) == [400]
    assert parsed(answer).headers["connection"] == "close"


@pytest.mark.parametrize("head", [b"GET /health HTTP/1.1\r\nX: ", b"GET /", b"GET /health HTTP/1.1\r\nX:"], ids=["value", "path", "spaces"])
def test_a_head_of_a_hundred_megabytes_costs_no_memory(server, head):
    gateway = psutil.Process(server.pids("gateway")[0])
    before, began = gateway.memory_info().rss, time.monotonic()
    with connect(server.port) as client:
        client.sendall(head)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(1600):
                client.sendall(b" " * 65_536 if head.endswith(b":") else b"a" * 65_536)
    assert time.monotonic() - began < 20
    assert gateway.memory_info().rss - before < 20 * 2**20
    assert statuses(ask(server.port, post("/v1/completions", GOOD, "Connection: close"))) == [200]
