"""Rate limits over real HTTP: who is refused and who is not, what headers tell, and what a Redis that is gone changes."""

import concurrent.futures
import contextlib
import itertools
import signal
import threading
import time

import httpx
import openai
import pytest

from src.keys import KeyFile
from tests.redis_server import Redis, redis  # noqa: F401 - a fixture
from tests.server import Server, wait_until

pytestmark = pytest.mark.slow

HELLO = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}  # 12 tokens and 4
ENDLESS = {**HELLO, "max_tokens": 10_000, "ignore_eos": True}


NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return KeyFile(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture(scope="module")
def server(file):
    """3 requests a minute of a key that has no limits of its own; a token every 10 ms, 2 requests at a time."""
    watch, _ = file.add("watch", scopes=["admin"])
    settings = {"RATE_LIMIT_REQUESTS": 3, "ECHO_STEP_MS": 10, "MAX_PARALLEL_SEQUENCES": 2, "CONTEXT_LENGTH": 2048}
    with Server(INFERENCE_ENGINE="echo", disposable=True, API_KEYS_FILE=file.path, key=watch, **settings) as running:
        yield running


@pytest.fixture
def new_key(file, server):
    """Makes a key and waits till the server knows it. Each has another name: what a name has used stays counted."""

    def make(name: str, **what: object) -> str:
        secret, _ = file.add(f"{name}-{next(NUMBERS)}", **what)
        models = server.url + "/v1/models"
        wait_until(lambda: httpx.get(models, headers={"x-api-key": secret}).status_code == 200, 10, "the new key")
        return secret

    yield make
    for key in file.read():
        if key.name != "watch":
            file.revoke(key.name)


def chat(server: Server, key: str = "", body: object = HELLO, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(server.url + "/v1/chat/completions", json=body, headers={"x-api-key": key, **named}, timeout=60)


def statuses(server: Server, number: int, key: str = "", **headers: str) -> list[int]:
    return [chat(server, key, **headers).status_code for _ in range(number)]


@contextlib.contextmanager
def streaming(server: Server, key: str = "", body: dict = ENDLESS):
    """A request that runs till the block ends; then its client hangs up."""
    with httpx.stream(
        "POST", server.url + "/v1/chat/completions", json={**body, "stream": True}, headers={"x-api-key": key}, timeout=60
    ) as it:
        assert it.status_code == 200, it.read()
        lines = it.iter_lines()
        next(lines)
        yield lines


def test_requests_beyond_a_keys_limit_are_refused_and_told_when_to_come_again(server, new_key):
    secrets = [new_key("a"), new_key("b")]
    first = chat(server, secrets[0])
    assert {name[12:]: value for name, value in first.headers.items() if name.startswith("x-ratelimit-")} == {
        "limit-requests": "3", "remaining-requests": "2", "reset-requests": "1m0s",
    }  # fmt: skip
    assert statuses(server, 2, secrets[0]) == [200, 200]
    refused = chat(server, secrets[0])
    error = refused.json()["error"]
    assert (refused.status_code, error["type"], error["code"]) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert "has used its 3 requests a minute" in error["message"]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert chat(server, secrets[1]).status_code == 200
    for path in ("/v1/models", "/health"):
        assert httpx.get(server.url + path, headers={"x-api-key": secrets[0]}).status_code == 200, "only requests for text are limited"
    with pytest.raises(openai.RateLimitError):
        server.client(api_key=secrets[0]).chat.completions.create(model="echo", **HELLO)


def test_a_keys_own_limits_win_over_the_settings(server, new_key):
    tight, free = new_key("tight", requests_per_minute=1), new_key("free", requests_per_minute=0)
    assert statuses(server, 2, tight) == [200, 429]
    assert statuses(server, 5, free) == [200] * 5
    assert "x-ratelimit-limit-requests" not in chat(server, free).headers


def test_tokens_are_counted_after_an_answer_and_looked_at_before_the_next(server, new_key):
    secret = new_key("a", tokens_per_minute=20)
    answers = [chat(server, secret) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    used = answers[0].json()["usage"]["total_tokens"]
    assert [answer.headers["x-ratelimit-remaining-tokens"] for answer in answers] == ["20", str(20 - used), "0"]
    assert "20 tokens a minute" in answers[2].json()["error"]["message"]
    assert int(answers[2].headers["retry-after"]) <= 60


def test_tokens_of_an_answer_that_its_client_left_are_counted_too(server, new_key):
    secret = new_key("a", tokens_per_minute=60, requests_per_minute=0)
    with streaming(server, secret) as lines:
        for _ in range(300):  # every second one is empty
            next(lines)
    refused = wait_until(lambda: (answer := chat(server, secret)).status_code == 429 and answer, 10, "the count of what was drawn")
    assert "tokens a minute" in refused.json()["error"]["message"]


def test_so_many_of_a_key_run_at_a_time_and_a_client_that_leaves_makes_room(server, new_key):
    secrets = [new_key("a", concurrent=1, requests_per_minute=0), new_key("b", concurrent=1)]
    with streaming(server, secrets[0]):
        refused = chat(server, secrets[0])
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert "has 1 requests running" in refused.json()["error"]["message"]
        assert chat(server, secrets[1]).status_code == 200
    wait_until(lambda: chat(server, secrets[0]).status_code == 200, 10, "a place")
    for wrong, status in (({}, 400), ({**HELLO, "temperature": 9}, 400), ({**HELLO, "model": "none"}, 404)):
        assert [chat(server, secrets[0], wrong).status_code for _ in range(2)] == [status] * 2, "a refusal holds no place"


def test_addresses_have_limits_of_their_own_which_trusted_proxies_tell():
    settings = {"RATE_LIMIT_ADDRESS_REQUESTS": 2, "TRUSTED_PROXIES": "127.0.0.1"}
    with Server(INFERENCE_ENGINE="echo", disposable=True, **settings) as server:
        assert statuses(server, 3, X_Forwarded_For="203.0.113.1") == [200, 200, 429]
        assert statuses(server, 1, X_Forwarded_For="203.0.113.2") == [200]
        assert statuses(server, 1, X_Forwarded_For="198.51.100.7, 203.0.113.1") == [429], "what a client puts before is not believed"
        assert statuses(server, 3, X_Forwarded_For="2001:db8::1") == [200, 200, 429]
        assert statuses(server, 1, X_Forwarded_For="2001:db8::ffff") == [429], "of the same subscriber"
        wait_until(lambda: "client=203.0.113.2 " in server.log("api_requests"))


def test_a_header_of_whoever_is_no_proxy_makes_no_other_address():
    with Server(INFERENCE_ENGINE="echo", disposable=True, RATE_LIMIT_ADDRESS_REQUESTS=2) as server:
        assert [statuses(server, 1, X_Forwarded_For=f"203.0.113.{number}")[0] for number in range(4)] == [200, 200, 429, 429]


def test_one_who_sends_everything_does_not_hold_up_the_others(server, new_key):
    """Places in the batch go round between keys: a request of b waits for one place, not for a's whole queue."""
    greedy, modest = new_key("a", concurrent=30, requests_per_minute=0), new_key("b")
    ended: list[float] = []

    def flood() -> int:
        status = chat(server, greedy, {**ENDLESS, "max_tokens": 50}).status_code
        if status == 200:
            ended.append(time.monotonic())
        return status

    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        floods = [pool.submit(flood) for _ in range(60)]
        wait_until(lambda: server.status()["requests"]["waiting"] >= 15, 60, "the flood")
        answers = [chat(server, modest, {**ENDLESS, "max_tokens": 10}) for _ in range(2)]
        through = time.monotonic()
        results = [future.result() for future in floods]
    assert [answer.status_code for answer in answers] == [200] * 2
    assert set(results) == {200, 429}
    assert sum(moment > through for moment in ended) >= 5, "b was through before a's queue was"


# Redis


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
        answer = wait_until(lambda: (answer := chat(other, secret)).status_code == 200 and answer, 10, "the place")
        assert int(answer.headers["x-ratelimit-remaining-tokens"]) < 1000


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


def test_a_redis_that_does_not_answer_costs_one_request_half_a_second_and_no_stream_a_token(redis: Redis, tmp_path):  # noqa: F811
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
