"""Rate limits of several servers: by the addresses that a proxy tells, in a Redis that they share, and while Redis is gone."""

import itertools
import json
import signal
import threading
import time

import httpx
import pytest

from src.keys import KeyFile
from tests.support.chats import HELLO, chat, statuses, streaming
from tests.support.openai_api import CHAT
from tests.support.redis_server import Redis, redis  # noqa: F401 - a fixture
from tests.support.server import Server, wait_until

pytestmark = pytest.mark.slow


def test_addresses_have_limits_of_their_own_which_trusted_proxies_tell():
    settings = {"RATE_LIMIT_ADDRESS_REQUESTS": 2, "TRUSTED_PROXIES": "127.0.0.1"}
    with Server(INFERENCE_ENGINE="echo", disposable=True, **settings) as server:
        assert statuses(server, 3, X_Forwarded_For="203.0.113.1") == [200, 200, 429]
        assert statuses(server, 1, X_Forwarded_For="203.0.113.2") == [200]
        assert statuses(server, 1, X_Forwarded_For="198.51.100.7, 203.0.113.1") == [429], "what a client puts before is not believed"
        assert statuses(server, 3, X_Forwarded_For="2001:db8::1") == [200, 200, 429]
        assert statuses(server, 1, X_Forwarded_For="2001:db8::ffff") == [429], "of the same subscriber"
        wait_until(lambda: "client=203.0.113.2 " in server.log("api_requests"))


def test_an_answer_that_goes_on_without_its_client_holds_its_place_and_counts_its_tokens():
    limits = {"RATE_LIMIT_ADDRESS_CONCURRENT": 1, "RATE_LIMIT_ADDRESS_TOKENS": 100, "ECHO_STEP_MS": 20}
    asked = {**HELLO, "max_tokens": 150, "ignore_eos": True, "stream": True}
    with Server(INFERENCE_ENGINE="echo", disposable=True, **limits) as server, server.http(timeout=60) as http:
        kept = {"Idempotency-Key": "a"}
        with http.stream("POST", CHAT, json=asked, headers=kept) as response:
            begun = [line for _, line in zip(range(9), response.iter_lines(), strict=False)]
        id = json.loads(begun[1].removeprefix("data: "))["id"]
        wait_until(lambda: "client_gone" in server.log("api_requests"), 5, "the end of the response")
        refused = chat(server, Idempotency_Key="b")
        assert (refused.status_code, "running" in refused.json()["error"]["message"]) == (429, True)
        # Who comes back needs no place beside the one that the answer holds.
        assert http.post(CHAT, json=asked, headers=kept).text == (whole := http.get(f"{CHAT}/{id}").text)
        assert whole.endswith("data: [DONE]\n\n")

        def told() -> str:
            return chat(server).json()["error"]["message"]

        wait_until(lambda: "100 tokens a minute" in told(), 5, "the tokens of the answer")
        assert http.post(CHAT, json=asked, headers=kept).text == whole, "what is kept costs nothing again"
        other = http.post(CHAT, json=asked, headers={"Idempotency-Key": "b"})
        assert other.status_code == 429
        embedded = http.post("/v1/embeddings", json={"input": "x"}, headers=kept)
        assert embedded.status_code == 429, "it is another route's key"


def test_workers_and_instances_share_their_limits_in_redis(redis: Redis, tmp_path):  # noqa: F811
    file = KeyFile(tmp_path / "keys.json")
    secret, _ = file.add("a", requests_per_minute=10)
    settings = {"INFERENCE_ENGINE": "echo", "API_KEYS_FILE": file.path, "RATE_LIMIT_STORAGE": redis.url}
    with Server(WORKERS=2, disposable=True, **settings) as one, Server(disposable=True, **settings) as other:
        found = [status for _ in range(10) for status in (*statuses(one, 1, secret), *statuses(other, 1, secret))]
        assert found == [200] * 10 + [429] * 10


def test_places_are_shared_in_redis_and_given_back(redis: Redis, tmp_path):  # noqa: F811
    file = KeyFile(tmp_path / "keys.json")
    secret, _ = file.add("a", concurrent=1, tokens_per_minute=1000)
    settings = {"INFERENCE_ENGINE": "echo", "API_KEYS_FILE": file.path, "RATE_LIMIT_STORAGE": redis.url, "ECHO_STEP_MS": 20}
    with Server(disposable=True, **settings) as one, Server(disposable=True, **settings) as other:
        with streaming(one, secret):
            assert chat(other, secret).status_code == 429
        own = itertools.count(0, 16)  # tokens of the requests that got through here: 12 and 4 each

        def counted() -> bool:
            answer = chat(other, secret)
            return answer.status_code == 200 and int(answer.headers["x-ratelimit-remaining-tokens"]) < 1000 - next(own)

        wait_until(counted, 10, "the place, and the tokens of the stream that was left")


def test_while_redis_is_gone_requests_pass_and_it_is_told_once(redis: Redis, tmp_path):  # noqa: F811
    file = KeyFile(tmp_path / "keys.json")
    secret, _ = file.add("a", requests_per_minute=2, tokens_per_minute=1000, concurrent=5)
    with Server(INFERENCE_ENGINE="echo", disposable=True, API_KEYS_FILE=file.path, RATE_LIMIT_STORAGE=redis.url) as server:
        assert statuses(server, 3, secret) == [200, 200, 429]
        redis.stop()
        assert statuses(server, 20, secret) == [200] * 20
        assert server.log("app").count("Redis cannot be reached") == 1
        redis.start()
        wait_until(lambda: 429 in statuses(server, 5, secret), 30, "the limits' return")
        assert server.log("app").count("Redis counts the rate limits again") == 1


def test_a_redis_that_does_not_answer_costs_one_request_half_a_second(redis: Redis, tmp_path):  # noqa: F811
    file = KeyFile(tmp_path / "keys.json")
    secret, _ = file.add("a", requests_per_minute=1000)
    settings = {"API_KEYS_FILE": file.path, "RATE_LIMIT_STORAGE": redis.url, "ECHO_STEP_MS": 10}
    with Server(INFERENCE_ENGINE="echo", disposable=True, **settings) as server, streaming(server, secret) as lines:
        redis.pause(signal.SIGSTOP)
        try:
            took: list[float] = []

            def ask() -> None:
                began = time.monotonic()
                assert chat(server, secret).status_code == 200
                took.append(time.monotonic() - began)

            asking = threading.Thread(target=ask)
            asking.start()
            tokens = 0
            while asking.is_alive():
                next(lines)
                tokens += 1
            asking.join()
            assert 0.5 <= took[0] < 5
            assert tokens > 20, "the stream goes on while the other waits for Redis"
            ask()
            assert took[1] < 0.5, "the next does not ask it"
        finally:
            redis.pause(signal.SIGCONT)


def test_where_limits_must_hold_requests_for_text_wait_for_redis(redis: Redis, tmp_path):  # noqa: F811
    file = KeyFile(tmp_path / "keys.json")
    secret, _ = file.add("a", requests_per_minute=100)
    settings = {"API_KEYS_FILE": file.path, "RATE_LIMIT_STORAGE": redis.url, "RATE_LIMIT_FAIL_OPEN": "false"}
    with Server(INFERENCE_ENGINE="echo", disposable=True, **settings) as server:
        redis.stop()
        refused = chat(server, secret)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "rate_limits_unavailable")
        assert refused.headers["retry-after"] == "5"
        assert httpx.get(server.url + "/v1/models", headers={"x-api-key": secret}).status_code == 200
        redis.start()


def test_a_server_starts_while_redis_is_gone(redis: Redis, tmp_path):  # noqa: F811
    file = KeyFile(tmp_path / "keys.json")
    secret, _ = file.add("a", requests_per_minute=1)
    redis.stop()
    with Server(INFERENCE_ENGINE="echo", disposable=True, API_KEYS_FILE=file.path, RATE_LIMIT_STORAGE=redis.url) as server:
        assert statuses(server, 2, secret) == [200, 200]
    redis.start()
