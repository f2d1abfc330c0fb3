"""Clients that connect, ask and vanish leave nothing behind, wherever their request was at that moment."""

import json
import os
import socket
import struct

import psutil
import pytest

from tests.support.answers import ask
from tests.support.server import Server, wait_until

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset
ENCODERS = min(32, (os.cpu_count() or 1) + 4)  # threads of asyncio's default executor, started as they are wanted and kept


def connect(server: Server, path: str, body: dict) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port))
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    client.sendall(head.encode() + data)
    return client


def vanish(clients: list[socket.socket]) -> None:
    """Each third with a reset, each third with a half-close, as a program does that ends after its question."""
    for number, client in enumerate(clients):
        if number % 3 == 1:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if number % 3 == 2:
            client.shutdown(socket.SHUT_WR)
        else:
            client.close()


def requests(server: Server) -> tuple[int, int, int]:
    """Running, waiting, and tokens in the KV cache."""
    of = server.status()["requests"]
    return of["running"], of["waiting"], of["kv_used_tokens"]


def held(server: Server) -> dict[str, tuple[int, int]]:
    """Descriptors and threads of gateway and runner: a connection is one, and so is what waits for it."""
    found = {}
    for name in ("gateway", "runner"):
        process = psutil.Process(server.pids(name)[0])
        found[name] = (process.num_fds(), process.num_threads())
    return found


def assert_nothing_left(server: Server, before: dict[str, tuple[int, int]], one_step: float = 10) -> None:
    wait_until(lambda: requests(server) == (0, 0, 0), timeout=one_step, what="an idle engine")

    def as_before() -> bool:
        now = held(server)
        return all(now[name][0] <= before[name][0] + 1 and now[name][1] <= before[name][1] + ENCODERS for name in before)

    wait_until(as_before, timeout=15, what=f"descriptors as before, threads at most an executor more ({before})")


def warm_up(server: Server) -> None:
    """Descriptors for logs are there from the first requests on."""
    for client in [connect(server, "/v1/completions", {"prompt": "x" * 40, "max_tokens": 3}) for _ in range(40)]:
        assert b"200 OK" in client.recv(4096)
        client.close()


@pytest.fixture(scope="module")
def server():
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=20, MAX_PARALLEL_SEQUENCES=8, CONTEXT_LENGTH=4096) as server:
        warm_up(server)
        yield server


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "plain"])
def test_two_hundred_clients_of_which_most_still_wait(server, stream):
    before = held(server)
    body = {"model": "echo", "prompt": "x" * 100, "ignore_eos": True, "stream": stream}
    clients = [connect(server, "/v1/completions", body) for _ in range(200)]
    wait_until(lambda: requests(server)[:2] == (8, 192), what="a full engine and a full queue")
    vanish(clients)
    assert_nothing_left(server, before)
    for client in clients:
        client.close()
    assert ask(server, "hello", max_tokens=5).text == "user:"


def test_clients_that_vanish_while_they_read(server):
    before = held(server)
    body = {"model": "echo", "prompt": "x" * 100, "ignore_eos": True, "stream": True}
    for _ in range(3):
        clients = [connect(server, "/v1/completions", body) for _ in range(8)]
        for client in clients:
            assert b"200 OK" in client.recv(65536)
        vanish(clients)
        assert_nothing_left(server, before)
        for client in clients:
            client.close()


def test_clients_that_vanish_at_once(server):
    before = held(server)
    for number in range(200):
        client = connect(
            server, "/v1/chat/completions", {"model": "echo", "messages": [{"role": "user", "content": "x"}], "ignore_eos": True}
        )
        if number % 2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()
    assert_nothing_left(server, before)


@pytest.mark.slow
def test_clients_that_vanish_while_their_prompt_is_computed(model_path):
    with Server(CONTEXT_LENGTH=2048, MAX_PARALLEL_SEQUENCES=2, CACHE_SIZE=0, STEP_TIME_TARGET_MS=50) as server:
        body = {"prompt": "one two three four " * 400, "max_tokens": 1}
        warm_up(server)
        before = held(server)
        clients = [connect(server, "/v1/completions", {**body, "stream": stream}) for stream in (True, False)]
        wait_until(lambda: requests(server)[2] > 0, timeout=120, what="a prompt that is being computed")
        generated = server.status()["models"][0]["stats"]["generated"]
        for client in clients:
            client.close()
        assert_nothing_left(server, before, one_step=90)  # of 512 tokens
        assert server.status()["models"][0]["stats"]["generated"] == generated, "they were cut before their first token"
