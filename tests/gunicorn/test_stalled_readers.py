"""Clients that do not read their answers: cut off after SEND_TIMEOUT, and till then nobody waits for them and no memory grows."""

import contextlib
import socket
import threading
import time

import psutil
import pytest

from tests.support.raw_http import connect, post, read_all
from tests.support.server import Server, wait_until

pytestmark = pytest.mark.slow

SEND = 2
STALLED = 6
LONG = {"model": "echo", "prompt": "x" * 20_000, "ignore_eos": True, "stream": True}  # megabytes of events


@pytest.fixture(scope="module")
def server():
    with Server(
        INFERENCE_ENGINE="echo", ECHO_STEP_MS=1, CONTEXT_LENGTH=65_536, MAX_PARALLEL_SEQUENCES=8, SEND_TIMEOUT=SEND, disposable=True
    ) as server:
        yield server


def running(server: Server) -> int:
    requests = server.status()["requests"]
    return requests["running"] + requests["waiting"]


def stalled(server: Server, **fields: object) -> socket.socket:
    client = connect(server.port, receive_buffer=2048)
    client.sendall(post("/v1/completions", {**LONG, **fields}))
    return client


def test_who_does_not_read_is_cut_off_and_its_job_is_cancelled(server):
    clients = [stalled(server) for _ in range(STALLED)]
    wait_until(lambda: running(server) == STALLED, what="streams that run")
    wait_until(lambda: running(server) == 0, timeout=SEND + 20, what="streams that were cancelled")  # by themselves: half a minute
    wait_until(lambda: server.log("api_requests").count("error=client_stalled") >= STALLED)
    for client in clients:
        with client:
            assert b"[DONE]" not in read_all(client)


def test_the_kernel_does_not_take_an_answer_of_half_a_megabyte_for_who_does_not_read(server):
    before = server.log("api_requests").count("error=client_stalled")
    with stalled(server, max_tokens=3000):
        wait_until(lambda: running(server) == 1)
        wait_until(lambda: running(server) == 0, timeout=SEND + 20)
        wait_until(lambda: server.log("api_requests").count("error=client_stalled") == before + 1, timeout=10)


def test_others_are_not_disturbed_by_it_and_memory_does_not_grow(server):
    gateway, runner = (psutil.Process(server.pids(name)[0]) for name in ("gateway", "runner"))
    before = [process.memory_info().rss for process in (gateway, runner)]
    done = threading.Event()
    clients: list[socket.socket] = []

    def stall_again_and_again() -> None:
        while not done.is_set():
            clients.append(stalled(server))
            done.wait(0.3)

    thread = threading.Thread(target=stall_again_and_again)
    thread.start()
    try:
        wait_until(lambda: running(server) >= 3, what="streams that do not read")
        gaps, text, last = [], "", time.monotonic()
        for chunk in server.client().completions.create(model="echo", prompt="y" * 1000, max_tokens=1000, stream=True):
            gaps.append(time.monotonic() - last)
            last = time.monotonic()
            text += chunk.choices[0].text
    finally:
        done.set()
        thread.join()
        for client in clients:
            client.close()
    assert text == "y" * 1000
    assert max(gaps) < SEND  # nobody waited for one that is to be cut off
    grown = [process.memory_info().rss - was for process, was in zip((gateway, runner), before, strict=True)]
    assert max(grown) < 30 * 2**20
    wait_until(lambda: running(server) == 0, timeout=SEND + 20)


def test_who_reads_slowly_but_reads_gets_its_whole_answer(server):
    body = {**LONG, "prompt": "x" * 2000, "max_tokens": 1500}
    with connect(server.port, receive_buffer=2048) as client:
        client.sendall(post("/v1/completions", body, "Connection: close"))
        answer, began = b"", time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            while data := client.recv(2048):
                answer += data
                if time.monotonic() - began < SEND * 2:
                    time.sleep(0.05)
    assert b"data: [DONE]" in answer
    assert time.monotonic() - began > SEND
