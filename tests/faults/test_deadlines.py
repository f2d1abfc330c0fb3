"""A request that cannot be answered in time costs nothing: it leaves the queue, and is told so."""

import json
import time

import httpx
import pytest

from tests.support.answers import Crowd, ask
from tests.support.server import Server, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    settings = {"MAX_PARALLEL_SEQUENCES": 1, "MAX_CONCURRENT_REQUESTS": 3, "REQUEST_TIMEOUT": 4}
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=20, **settings) as server:
        yield server


def stats(server: Server) -> dict:
    return server.status()["models"][0]["stats"]


def post(server: Server, **fields: object) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/completions", json={"model": "echo", "prompt": "hello", **fields}, timeout=30)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_request_whose_timeout_passes_in_the_queue_is_never_begun(server, stream):
    with Crowd() as crowd:
        running = crowd.ask(server, "x" * 100, max_tokens=100)
        wait_until(lambda: stats(server)["running"] == 1, what="a full engine")
        admitted = stats(server)["admitted"]
        began = time.monotonic()
        late = post(server, timeout=0.3, stream=stream)
        assert time.monotonic() - began < 1.5
        assert (late.status_code, late.json()["error"]["code"]) == (504, "request_timeout")
        assert late.headers["x-should-retry"] == "false", "the same request would only be late again"
        wait_until(lambda: stats(server)["waiting"] == 0, timeout=1, what="its leaving the queue")
        assert len(running.result().text) == 100
    assert stats(server)["admitted"] == admitted


def test_a_timeout_of_ones_own_cannot_be_longer_than_any_request_may_take(server):
    began = time.monotonic()
    answer = ask(server, "x" * 500, extra_body={"ignore_eos": True, "timeout": 3600})
    assert answer.error == "request_timeout"
    assert time.monotonic() - began < 15


def test_a_timeout_in_the_middle_of_a_stream_ends_it_with_an_error(server):
    answer = ask(server, "x" * 100, extra_body={"timeout": 0.5})
    assert answer.error == "request_timeout"
    assert 5 < len(answer.text) < 100


@pytest.mark.parametrize("timeout", [0, -1, True, "5", 1e999])
def test_a_timeout_that_is_none_is_refused(server, timeout):

    data = json.dumps({"model": "echo", "prompt": "hello", "timeout": timeout}).replace("Infinity", "1e999")
    refused = httpx.post(f"{server.url}/v1/completions", content=data, headers={"Content-Type": "application/json"})
    assert refused.status_code == 400


def test_who_is_turned_away_is_told_when_places_will_be_free(server):
    for _ in range(3):
        post(server)
    with Crowd() as crowd:
        for _ in range(3):
            crowd.ask(server, "x" * 500, extra_body={"ignore_eos": True})  # till REQUEST_TIMEOUT
        wait_until(lambda: stats(server)["running"] + stats(server)["waiting"] == 3, what="a full queue")
        refused = post(server)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 120
