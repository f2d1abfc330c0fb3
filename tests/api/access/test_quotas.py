"""Rate limits: who is refused and who is not, and what headers tell."""

import concurrent.futures
import itertools
import time

import openai
import pytest

from src.keys import KeyFile
from tests.support.chats import ENDLESS, HELLO, chat, statuses, streaming
from tests.support.in_process import InProcess
from tests.support.server import wait_until

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return KeyFile(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture(scope="module")
def server(file):
    """3 requests a minute of a key that has no limits of its own; a token every 10 ms, 2 requests at a time."""
    watch, _ = file.add("watch", scopes=["admin"])
    settings = {"RATE_LIMIT_REQUESTS": 3, "ECHO_STEP_MS": 10, "MAX_PARALLEL_SEQUENCES": 2, "CONTEXT_LENGTH": 2048}
    with InProcess(API_KEYS_FILE=file.path, key=watch, **settings) as running:
        yield running


@pytest.fixture
def new_key(file, server):
    """Makes a key and waits till the server knows it. Each has another name: what a name has used stays counted."""

    def make(name: str, **what: object) -> str:
        secret, _ = file.add(f"{name}-{next(NUMBERS)}", **what)
        with server.http(headers={"x-api-key": secret}) as http:
            wait_until(lambda: http.get("/v1/models").status_code == 200, 10, "the new key")
        return secret

    yield make
    for key in file.read():
        if key.name != "watch":
            file.revoke(key.name)


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
    with server.http(headers={"x-api-key": secrets[0]}) as http:
        for path in ("/v1/models", "/health"):
            assert http.get(path).status_code == 200, "only requests for text are limited"
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
        assert "may have 1 sequences running" in refused.json()["error"]["message"]
        assert chat(server, secrets[1]).status_code == 200
    wait_until(lambda: chat(server, secrets[0]).status_code == 200, 10, "a place")
    for wrong, status in (({}, 400), ({**HELLO, "temperature": -9}, 400), ({**HELLO, "model": "none"}, 404)):
        assert [chat(server, secrets[0], wrong).status_code for _ in range(2)] == [status] * 2, "a refusal holds no place"


def test_each_sequence_of_a_request_counts_as_one_that_runs(server, new_key):
    secret = new_key("a", concurrent=2, requests_per_minute=0)
    assert chat(server, secret, {**HELLO, "n": 2}).status_code == 200
    wait_until(lambda: chat(server, secret, {**HELLO, "n": 2}).status_code == 200, 10, "the places of the one before")
    refused = chat(server, secret, {**HELLO, "n": 3})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "n")
    with streaming(server, secret):
        refused = chat(server, secret, {**HELLO, "n": 2})
        assert refused.status_code == 429
        assert "no room for 1 more" in refused.json()["error"]["message"]
        assert chat(server, secret).status_code == 200


def test_a_header_of_whoever_is_no_proxy_makes_no_other_address():
    with InProcess(RATE_LIMIT_ADDRESS_REQUESTS=2) as server:
        assert [statuses(server, 1, X_Forwarded_For=f"203.0.113.{number}")[0] for number in range(4)] == [200, 200, 429, 429]


def test_one_who_sends_everything_does_not_hold_up_the_others(server, new_key):
    """Places in the batch go round between keys: a request of b waits for one place, not for a's whole queue."""
    greedy, modest = new_key("a", concurrent=30, requests_per_minute=0), new_key("b")
    ended: list[float] = []

    def flood() -> int:
        status = chat(server, greedy, {**ENDLESS, "max_tokens": 25}).status_code
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
