"""A pause of the whole machine restarts nothing, and a client that asks without a pause holds nobody up."""

import contextlib
import signal
import socket
import threading
import time

import httpx
import psutil
import pytest

from tests.support.answers import Crowd
from tests.support.server import Server, wait_until


def signal_all(tree: list[psutil.Process], number: signal.Signals) -> None:
    for process in tree:
        process.send_signal(number)


@pytest.mark.slow
def test_a_pause_of_every_process_is_nobodys_hang():
    """As of a laptop that sleeps, or a virtual machine that is moved: longer than a step may take."""
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=20, ENGINE_STALL_SECONDS=2) as server, Crowd() as crowd:
        answers = [crowd.ask(server, "x" * 100, whole=number % 2 == 0) for number in range(4)]
        wait_until(lambda: server.status()["requests"]["running"] == 4, what="running requests")
        tree = server.processes()
        signal_all(tree, signal.SIGSTOP)
        time.sleep(6)
        signal_all(tree, signal.SIGCONT)
        assert [answer.result().text for answer in answers] == [f"user: {'x' * 100}\n"] * 4
        assert {process.pid for process in tree} <= {process.pid for process in server.processes()}
        assert server.status()["models"][0]["restarts"] == 0


@pytest.mark.slow
def test_a_client_that_asks_without_a_pause_on_one_connection_starves_no_other():
    """What it asks needs no wait for anybody: a worker that never waits would serve nobody else, and be killed as hung."""
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=10, SHUTDOWN_GRACE_SECONDS=1) as server, Crowd() as crowd:
        worker = server.pids("gateway")
        stop = threading.Event()
        asked = [0]

        def hammer() -> None:
            request = b"GET /no/such/route HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                reading = threading.Thread(target=drain, args=(connection,))
                reading.start()
                while not stop.is_set():
                    connection.sendall(request)
                    asked[0] += 50
                connection.shutdown(socket.SHUT_RDWR)
                reading.join()

        def drain(connection: socket.socket) -> None:
            with contextlib.suppress(ConnectionResetError):  # what the server has sent behind the shutdown below
                while connection.recv(65536):
                    pass

        thread = threading.Thread(target=hammer)
        thread.start()
        try:
            wait_until(lambda: asked[0] > 200, what="a client that hammers")
            stream = crowd.ask(server, "x" * 50)
            times = []
            for _ in range(10):
                began = time.monotonic()
                assert httpx.get(f"{server.url}/health", timeout=30).status_code == 200
                times.append(time.monotonic() - began)
            assert stream.result().text == f"user: {'x' * 50}\n"
        finally:
            stop.set()
            thread.join()
        assert sorted(times)[5] < 1, "the others' turn comes between its requests"
        assert server.pids("gateway") == worker
