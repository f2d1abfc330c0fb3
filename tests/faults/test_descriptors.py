"""A process that may open no more files: who is served stays served, others wait or get a 503, and it recovers by itself."""

import contextlib
import socket
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.faults.test_vanished_clients import connect
from tests.support.answers import Crowd, ask
from tests.support.programs import program
from tests.support.server import Server, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux changes another process's limits")
SHORT = {"model": "echo", "prompt": "x" * 20, "max_tokens": 5}


@pytest.fixture(scope="module")
def server():
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=20, MAX_CONCURRENT_REQUESTS=1000, MAX_PARALLEL_SEQUENCES=64) as server:
        yield server


@contextlib.contextmanager
def descriptors(process: psutil.Process, more: int) -> Iterator[None]:
    """The process may open so many more."""
    before = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + more, before[1]))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_NOFILE, before)


def status_of(client: socket.socket) -> int:
    """Of the answer, which has to come."""
    client.settimeout(60)
    head = b""
    while b"\r\n" not in head:
        data = client.recv(65536)
        assert data, "closed without an answer"
        head += data
    client.close()
    return int(head.split()[1])


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


@pytest.mark.slow
@pytest.mark.parametrize("place", ["gateway", "manager", "runner"])
def test_a_process_without_descriptors_serves_those_it_has_and_the_others_later(server, place):
    process = psutil.Process(server.pids(place)[0])
    with Crowd() as crowd:
        streams = [crowd.ask(server, "x" * 200) for _ in range(8)]
        wait_until(lambda: server.status()["requests"]["running"] == 8, what="running streams")
        with descriptors(process, more=6):
            clients = [connect(server, "/v1/completions", SHORT) for _ in range(100)]
            used = cpu_seconds(process)
            assert {stream.result().text for stream in streams} == {f"user: {'x' * 200}\n"}
            used = cpu_seconds(process) - used
        answers = [status_of(client) for client in clients]
    assert set(answers) <= {200, 503}
    assert used < 2.5, "it turned in a circle"  # of the 4 seconds that the streams take, theirs included
    assert ask(server, "hello").text == "user: hello\n"
    assert psutil.Process(server.pids(place)[0]) == process


@pytest.mark.slow
def test_a_shells_limit_is_raised_and_a_worker_takes_no_more_connections_than_it_has_descriptors_for():
    """Else a hundred clients would take every descriptor, and none would be left for the way to the model."""
    prlimit, limited = program("prlimit"), f"--nofile=80:120 {sys.executable} run.py --mode prod"
    with Server(program=prlimit, command=limited, INFERENCE_ENGINE="echo", ECHO_STEP_MS=2, MAX_CONCURRENT_REQUESTS=1000) as server:
        for use in server.status()["processes"]:  # what renders templates has none, on purpose, and is not among them
            assert psutil.Process(use["pid"]).rlimit(psutil.RLIMIT_NOFILE) == (120, 120), use["name"]
        clients = [connect(server, "/v1/completions", SHORT) for _ in range(150)]
        assert {status_of(client) for client in clients} == {200}
        assert "Too many open files" not in server.output


@pytest.mark.slow
@pytest.mark.parametrize("place", ["manager", "runner"])
def test_more_connections_than_a_stopped_process_takes_wait_without_turning_in_a_circle(server, place):
    gateway, stopped = (psutil.Process(server.pids(name)[0]) for name in ("gateway", place))
    stopped.suspend()
    try:
        clients = [connect(server, "/v1/completions", SHORT) for _ in range(200)]
        wait_until(lambda: gateway.num_fds() > 400, what="connections at the gateway, and from there")
        used = cpu_seconds(gateway)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: False, timeout=2)
        used = cpu_seconds(gateway) - used
    finally:
        stopped.resume()
    assert {status_of(client) for client in clients} == {200}
    assert used < 0.3
