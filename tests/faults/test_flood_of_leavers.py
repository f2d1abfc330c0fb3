"""Hundreds of clients a second that ask, or ask half of it, and hang up at once: others are answered as ever, and nothing stays."""

import contextlib
import socket
import time
from collections.abc import Iterator

import psutil
import pytest

from src.keys import KeyFile
from tests.faults.test_vanished_clients import RESET, assert_nothing_left, held
from tests.support.raw_http import connect, parsed, post, read_all
from tests.support.server import Server, wait_until

LEAVERS = 600
CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    file = KeyFile(tmp_path_factory.mktemp("keys") / "keys.json")
    alice, bob = file.add("alice", scopes=["inference", "monitor"])[0], file.add("bob", tokens_per_minute=100_000, concurrent=400)[0]
    return file, alice, bob


@pytest.fixture(scope="module")
def server(keys):
    file, alice, _ = keys
    settings = {"INFERENCE_ENGINE": "echo", "ECHO_STEP_MS": 10, "API_KEYS_FILE": file.path}
    with Server(disposable=True, key=alice, **settings) as server:
        for _ in range(10):
            assert ask(server, "/v1/chat/completions", alice, CHAT).status_code == 200  # descriptors of logs are there from now on
        yield server


def question(path: str, key: str, body: dict, *headers: str) -> bytes:
    return post(path, body, f"Authorization: Bearer {key}", "Connection: close", *headers)


def ask(server: Server, path: str, key: str, body: dict):
    with connect(server.port) as client:
        client.sendall(question(path, key, body))
        return parsed(read_all(client))


@contextlib.contextmanager
def standing_still(server: Server) -> Iterator[None]:
    """What clients do meanwhile, the gateway finds all at once: as many as come while it does something else for a second."""
    gateway = psutil.Process(server.pids("gateway")[0])
    gateway.suspend()
    try:
        yield
    finally:
        gateway.resume()


def leave(server: Server, data: bytes, number: int) -> None:
    for each in range(number):
        with connect(server.port) as client:
            client.sendall(data)
            if each % 4 == 3:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def lines_of(server: Server, key: str) -> int:
    return server.log("api_requests").count(f" key={key} ")


def test_a_question_whose_client_has_left_is_not_begun(server, keys):
    _, alice, bob = keys
    whole = question("/v1/chat/completions", bob, {**CHAT, "ignore_eos": True, "max_tokens": 500})
    before, lines = held(server), lines_of(server, "bob")
    with connect(server.port) as client:
        with standing_still(server):
            for data in (whole, whole[:60]):
                leave(server, data, LEAVERS)
            began = time.monotonic()
            client.sendall(question("/v1/chat/completions", alice, CHAT))
        assert parsed(read_all(client)).status_code == 200
    assert time.monotonic() - began < 10
    wait_until(lambda: ask(server, "/v1/chat/completions", alice, CHAT).status_code == 200, what="the end of the crowd")
    assert_nothing_left(server, before)
    assert lines_of(server, "bob") == lines, "each costs what a connection costs"
    answer = ask(server, "/v1/chat/completions", bob, CHAT)
    assert answer.headers["x-ratelimit-remaining-tokens"] == "100000", "and nothing is counted"


def test_what_is_done_all_the_same_is_begun_without_its_client(server, keys):
    """A request that says Idempotency-Key, and one that is not whole, which is told so."""
    _, _, bob = keys
    whole, lines = question("/v1/chat/completions", bob, CHAT, "Idempotency-Key: gone"), lines_of(server, "bob")
    with standing_still(server):
        leave(server, whole, 1)
        with connect(server.port) as client:
            client.sendall(question("/v1/chat/completions", bob, CHAT)[:-5])
            client.shutdown(socket.SHUT_WR)
            half = client.dup()
    with half:
        assert parsed(read_all(half)).json()["error"]["code"] == "invalid_json"
    wait_until(lambda: lines_of(server, "bob") == lines + 2, what="both lines of the log")
    with connect(server.port) as client:
        client.sendall(whole)
        again = parsed(read_all(client))
    assert again.status_code == 200
    assert "x-ratelimit-limit-tokens" not in again.headers, "it was kept, and costs nothing again"
