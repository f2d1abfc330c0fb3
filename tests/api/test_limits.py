"""The limits that the gateway and the runner hold together: each by its status, code, param and setting."""

import time

import httpx
import pytest

from tests.support.in_process import InProcess
from tests.support.server import wait_until

QUEUE = 1
CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"


@pytest.fixture(scope="module")
def server():
    with InProcess(
        ECHO_STEP_MS=20,
        MAX_PARALLEL_SEQUENCES=1,
        QUEUE_TIMEOUT=QUEUE,
        MAX_CONCURRENT_REQUESTS=4,
        MAX_PROMPT_TOKENS=200,
        MAX_COMPLETION_TOKENS=150,
        MAX_JSON_DEPTH=10,
        MAX_JSON_CONTAINERS=1000,
        MAX_JSON_VALUES=2000,
        MAX_ANSWER_LOGPROBS=100,
    ) as server:
        yield server


@pytest.fixture(scope="module")
def http(server):
    with server.http() as client:
        yield client


def refused(http: httpx.Client, path: str, body: dict, status: int, code: str, param: str | None, told: str) -> httpx.Response:
    response = http.post(path, json=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    assert told in error["message"]
    return response


def test_who_waits_too_long_for_a_place_is_told_when_to_come_again(server, http):
    with http.stream("POST", COMPLETIONS, json={"model": "echo", "prompt": "x", "ignore_eos": True, "stream": True}):
        wait_until(lambda: server.status()["requests"]["running"] == 1)
        response = refused(http, COMPLETIONS, {"prompt": "y"}, 503, "queue_timeout", None, "QUEUE_TIMEOUT allows, 1 s")
        assert 1 <= int(response.headers["retry-after"]) <= 120
        streamed = refused(http, COMPLETIONS, {"prompt": "y", "stream": True}, 503, "queue_timeout", None, "QUEUE_TIMEOUT")
        assert streamed.headers["content-type"] == "application/json"
        assert server.status()["requests"]["running"] == 1  # it goes on, though it takes longer than that
        assert server.status()["requests"]["waiting"] == 0
    assert http.post(COMPLETIONS, json={"prompt": "abc", "max_tokens": 3}).json()["choices"][0]["text"] == "abc"


def test_who_is_begun_in_time_may_take_longer_than_the_queue_lets_wait(http):
    answer = http.post(COMPLETIONS, json={"prompt": "z" * 100, "max_tokens": 100}).json()  # 100 steps of 20 ms
    assert answer["choices"][0]["text"] == "z" * 100


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
def test_a_prompt_has_as_many_tokens_as_the_setting_allows(http, path, body, param):
    told = "MAX_PROMPT_TOKENS allows 200" if len(str(body)) < 1000 else ""  # beyond the context, that is told
    refused(http, path, body, 400, "context_length_exceeded", param, told)


def test_a_prompt_may_have_as_many(http):
    assert http.post(COMPLETIONS, json={"prompt": "x" * 200, "max_tokens": 1}).status_code == 200


def test_an_answer_has_as_many_tokens_as_the_setting_allows(http):
    [choice] = http.post(COMPLETIONS, json={"prompt": "x" * 190, "ignore_eos": True, "max_tokens": 151}).json()["choices"]
    assert (len(choice["text"]), choice["finish_reason"]) == (150, "length"), "more is cut"


@pytest.mark.slow
def test_an_answer_is_cut_also_where_nothing_is_asked_for_and_in_other_apis(http):
    text = "x" * 190
    messages = [{"role": "user", "content": text}]
    assert http.post(COMPLETIONS, json={"prompt": text, "ignore_eos": True}).json()["usage"]["completion_tokens"] == 150
    chat = {"messages": messages, "ignore_eos": True, "max_completion_tokens": 32_000}
    assert http.post(CHAT, json=chat).json()["usage"]["completion_tokens"] == 150
    message = {"messages": messages, "max_tokens": 32_000, "stop_sequences": ["y"]}
    assert http.post("/v1/messages", json=message).json()["stop_reason"] == "max_tokens"


def test_a_request_for_more_sequences_than_can_ever_run_is_not_told_to_come_again(http):
    told = "MAX_CONCURRENT_REQUESTS allows 4"
    refused(http, COMPLETIONS, {"prompt": "x", "n": 5}, 400, "invalid_value", "n", told)
    refused(http, COMPLETIONS, {"prompt": ["x"] * 5}, 400, "invalid_value", "prompt", told)


def test_choices_tokens_and_logprobs_have_a_bound_together(http):
    told = "must be at most 4, or ask for fewer choices or logprobs: of 8 choices with 3 logprobs at each token"
    body = {"prompt": ["x", "y"], "n": 2, "logprobs": 4, "max_tokens": 5}
    assert http.post(COMPLETIONS, json=body).status_code == 200  # 2 x 2 x 5 x (1 + 4)
    for more in ({"max_tokens": 6}, {"logprobs": 5}, {"max_tokens": None}):
        refused(http, COMPLETIONS, {**body, **more}, 400, "invalid_value", "max_tokens", "MAX_ANSWER_LOGPROBS allows 100")
    assert http.post(COMPLETIONS, json={**body, "max_tokens": 10, "logprobs": None}).status_code == 200
    chat = {"messages": [{"role": "user", "content": "x"}], "logprobs": True, "top_logprobs": 2, "max_tokens": 5}
    refused(http, CHAT, {**chat, "n": 8}, 400, "invalid_value", "max_tokens", told)
    refused(http, "/v1/responses", {"input": "x", "top_logprobs": 20}, 400, "invalid_value", "max_output_tokens", "must be at most 4,")
    assert http.post(CHAT, json={**chat, "n": 4}).status_code == 200


@pytest.mark.parametrize("closing", [("[", "]"), ('{"a":', "}")], ids=["lists", "objects"])
def test_a_body_is_nested_as_deep_as_the_setting_allows(http, closing):
    def nested(levels: int) -> bytes:
        return b'{"prompt": "x", "max_tokens": 1, "user": ' + (closing[0] * (levels - 1) + "1" + closing[1] * (levels - 1)).encode() + b"}"

    headers = {"Content-Type": "application/json"}
    assert http.post(COMPLETIONS, content=nested(10), headers=headers).status_code == 200
    for levels in (11, 64, 900):
        response = http.post(COMPLETIONS, content=nested(levels), headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")
        assert "MAX_JSON_DEPTH allows 10 levels" in response.json()["error"]["message"]


def test_a_body_has_as_many_objects_and_lists_as_the_setting_allows(http):
    body = {"prompt": "x", "max_tokens": 1}
    assert http.post(COMPLETIONS, json={**body, "user": [[]] * 998}).status_code == 200  # with the body and the list
    refused(http, COMPLETIONS, {**body, "user": [[]] * 999}, 400, "invalid_json", None, "MAX_JSON_CONTAINERS allows 1000")
    assert http.post(COMPLETIONS, json={**body, "user": "[" * 2000}).status_code == 200


def test_a_body_has_as_many_values_as_the_setting_allows(http):
    body = {"prompt": "x", "max_tokens": 1}
    assert http.post(COMPLETIONS, json={**body, "user": [1] * 1996}).status_code == 200  # with the three, and one more for the list
    for items in ([1] * 1998, [""] * 1998, [None] * 5000):
        refused(http, COMPLETIONS, {**body, "user": items}, 400, "invalid_json", None, "MAX_JSON_VALUES allows 2000")
    assert http.post(COMPLETIONS, json={**body, "user": "," * 5000}).status_code == 200


@pytest.mark.parametrize("item", [b',""', b",1", b",-1", b",null"], ids=repr)
@pytest.mark.parametrize(("path", "field"), [(COMPLETIONS, b"prompt"), (EMBEDDINGS, b"input"), ("/v1/detokenize", b"tokens")])
def test_a_body_of_millions_of_values_is_refused_at_once(http, path, field, item):
    body = b'{"%s": [1%s]}' % (field, item * (8_000_000 // len(item)))
    began = time.process_time()
    response = http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")
    assert time.process_time() - began < 1
