"""SIGTERM drains: running streams end within the grace period, new connections are refused, no process is left."""

import threading
import time

import httpx
import openai
import pytest

from tests.support.server import Server, assert_gone, wait_until

pytestmark = pytest.mark.slow


class Stream:
    """A long stream in a thread of its own."""

    def __init__(self, server: Server, max_tokens: int) -> None:
        self.text, self.error = "", None
        self._arguments = {
            "model": "echo",
            "messages": [{"role": "user", "content": "x" * 20}],
            "max_tokens": max_tokens,
            "stream": True,
            "extra_body": {"ignore_eos": True},
        }
        self._client = server.client()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        wait_until(lambda: self.text, what="the stream's begin")

    def _run(self) -> None:
        try:
            for chunk in self._client.chat.completions.create(**self._arguments):
                self.text += chunk.choices[0].delta.content or ""
        except openai.APIError as error:
            self.error = error


def refused(server: Server) -> bool:
    try:
        httpx.get(f"{server.url}/health", timeout=2)
    except httpx.ConnectError:
        return True
    return False


def test_streams_in_flight_end_normally_and_new_connections_are_refused():
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=10) as server:
        streams = [Stream(server, 300) for _ in range(5)]
        tree = server.processes()
        server.process.terminate()
        wait_until(lambda: refused(server), timeout=3, what="the refusal of new connections")
        assert all(stream.thread.is_alive() for stream in streams)
        for stream in streams:
            stream.thread.join()
            assert (len(stream.text), stream.error) == (300, None)
        assert server.process.wait(10) == 0
        assert_gone(tree)


def test_a_stream_longer_than_the_grace_period_ends_with_an_error_that_says_so():
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=50, SHUTDOWN_GRACE_SECONDS=1) as server:
        stream = Stream(server, 900)
        tree = server.processes()
        began = time.monotonic()
        server.process.terminate()
        stream.thread.join(15)
        assert "shutting down" in str(stream.error)
        assert server.process.wait(15) == 0
        assert time.monotonic() - began < 8
        assert_gone(tree)


def test_a_request_that_comes_while_the_listener_closes_gets_503():
    for _ in range(5):  # on a busy machine the listener may be closed before any request has reached it
        answers = answers_during_a_stop()
        statuses = [answer.status_code for answer in answers]
        assert statuses == sorted(statuses), "200 till the stop has begun, 503 from then on"
        if 503 in statuses:
            break
    assert answers[-1].json()["error"]["code"] == "server_shutting_down"
    assert 10 <= int(answers[-1].headers["Retry-After"]) <= 15, "as long as running requests may still take"


def answers_during_a_stop() -> list[httpx.Response]:
    """Of requests one after the other, till connections are refused."""
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=10) as server:
        stream = Stream(server, 300)
        server.process.terminate()
        answers = []

        def refused() -> bool:
            try:
                answers.append(httpx.get(f"{server.url}/v1/models", timeout=2))
            except httpx.TransportError:
                return True
            return False

        wait_until(refused, what="the refusal of new connections")
        stream.thread.join()
        assert len(stream.text) == 300
        assert server.process.wait(10) == 0
        return answers


def test_idle_connections_do_not_delay_the_stop():
    with Server(INFERENCE_ENGINE="echo") as server, httpx.Client() as client:
        client.get(f"{server.url}/health")
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 4, "they would wait for five seconds"


@pytest.mark.parametrize("place", ["gateway", "manager", "runner"])
def test_a_stop_works_after_any_process_was_killed(place):
    with Server(INFERENCE_ENGINE="echo") as server:
        victim = server.pids(place)[0]
        tree = server.processes()
        next(process for process in tree if process.pid == victim).kill()
        assert server.stop() == 0
        assert_gone(tree)
