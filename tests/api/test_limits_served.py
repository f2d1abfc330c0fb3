"""The limits that the gateway and the runner hold together, on a real server: each by its status, code, param and setting."""

import threading

import httpx
import pytest

from tests.raw_http import connect, post
from tests.server import Server, wait_until

QUEUE = 1
CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"


@pytest.fixture(scope="module")
def server():
    with Server(
        INFERENCE_ENGINE="echo",
        ECHO_STEP_MS=20,
        MAX_PARALLEL_SEQUENCES=1,
        QUEUE_TIMEOUT=QUEUE,
        MAX_CONCURRENT_REQUESTS=4,
        MAX_PROMPT_TOKENS=200,
        MAX_COMPLETION_TOKENS=150,
        MAX_JSON_DEPTH=10,
        MAX_JSON_CONTAINERS=1000,
        disposable=True,
    ) as server:
        yield server


def refused(server: Server, path: str, body: dict, status: int, code: str, param: str | None, told: str) -> httpx.Response:
    response = httpx.post(f"{server.url}{path}", json=body, timeout=30)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    assert told in error["message"]
    return response


def test_who_waits_too_long_for_a_place_is_told_when_to_come_again_and_nobody_else_is(server):
    with connect(server.port) as running:
        running.sendall(post(COMPLETIONS, {"model": "echo", "prompt": "x", "ignore_eos": True, "stream": True}))
        wait_until(lambda: server.status()["requests"]["running"] == 1)
        response = refused(server, COMPLETIONS, {"prompt": "y"}, 503, "queue_timeout", None, "QUEUE_TIMEOUT allows, 1 s")
        assert 1 <= int(response.headers["retry-after"]) <= 120
        streamed = refused(server, COMPLETIONS, {"prompt": "y", "stream": True}, 503, "queue_timeout", None, "QUEUE_TIMEOUT")
        assert streamed.headers["content-type"] == "application/json"
        assert server.status()["requests"]["running"] == 1  # it goes on, though it takes longer than that
        assert server.status()["requests"]["waiting"] == 0
    assert httpx.post(f"{server.url}{COMPLETIONS}", json={"prompt": "abc", "max_tokens": 3}).json()["choices"][0]["text"] == "abc"


def test_who_is_begun_in_time_may_take_longer_than_the_queue_lets_wait(server):
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(httpx.post(f"{server.url}{COMPLETIONS}", json={"prompt": "z" * 100, "max_tokens": 100}, timeout=30))

    thread = threading.Thread(target=ask)  # 100 steps of 20 ms
    thread.start()
    thread.join()
    assert answers[0].json()["choices"][0]["text"] == "z" * 100


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (COMPLETIONS, {"prompt": "x" * 201}, "prompt"),
        (COMPLETIONS, {"prompt": [1] * 201}, "prompt"),
        (COMPLETIONS, {"prompt": "x" * 100_000}, "prompt"),
        (CHAT, {"messages": [{"role": "user", "content": "x" * 201}]}, "messages"),
        (EMBEDDINGS, {"input": "x" * 201}, "input"),
    ],
)
def test_a_prompt_has_as_many_tokens_as_the_setting_allows(server, path, body, param):
    told = "MAX_PROMPT_TOKENS allows 200" if len(str(body)) < 1000 else ""  # beyond the context, that is told
    refused(server, path, body, 400, "context_length_exceeded", param, told)


def test_a_prompt_may_have_as_many(server):
    assert httpx.post(f"{server.url}{COMPLETIONS}", json={"prompt": "x" * 200, "max_tokens": 1}).status_code == 200


def test_an_answer_has_as_many_tokens_as_the_setting_allows_where_the_request_says_nothing(server):
    body = {"prompt": "x" * 190, "ignore_eos": True}
    [choice] = httpx.post(f"{server.url}{COMPLETIONS}", json=body, timeout=30).json()["choices"]
    assert (len(choice["text"]), choice["finish_reason"]) == (150, "length")
    refused(server, COMPLETIONS, {**body, "max_tokens": 151}, 400, "invalid_value", "max_tokens", "MAX_COMPLETION_TOKENS allows 150")


def test_a_request_for_more_sequences_than_can_ever_run_is_not_told_to_come_again(server):
    told = "MAX_CONCURRENT_REQUESTS allows 4"
    refused(server, COMPLETIONS, {"prompt": "x", "n": 5}, 400, "invalid_value", "n", told)
    refused(server, COMPLETIONS, {"prompt": ["x"] * 5}, 400, "invalid_value", "prompt", told)


@pytest.mark.parametrize("closing", [("[", "]"), ('{"a":', "}")], ids=["lists", "objects"])
def test_a_body_is_nested_as_deep_as_the_setting_allows(server, closing):
    def nested(levels: int) -> bytes:
        return b'{"prompt": "x", "max_tokens": 1, "user": ' + (closing[0] * (levels - 1) + "1" + closing[1] * (levels - 1)).encode() + b"}"

    headers = {"Content-Type": "application/json"}
    assert httpx.post(f"{server.url}{COMPLETIONS}", content=nested(10), headers=headers).status_code == 200
    for levels in (11, 64, 900):
        response = httpx.post(f"{server.url}{COMPLETIONS}", content=nested(levels), headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")
        assert "10 levels that MAX_JSON_DEPTH allows" in response.json()["error"]["message"]


def test_a_body_has_as_many_objects_and_lists_as_the_setting_allows(server):
    body = {"prompt": "x", "max_tokens": 1}
    assert httpx.post(f"{server.url}{COMPLETIONS}", json={**body, "user": [[]] * 998}).status_code == 200  # with the body and the list
    refused(server, COMPLETIONS, {**body, "user": [[]] * 999}, 400, "invalid_json", None, "1000 that MAX_JSON_CONTAINERS allows")
    assert httpx.post(f"{server.url}{COMPLETIONS}", json={**body, "user": "[" * 2000}).status_code == 200
