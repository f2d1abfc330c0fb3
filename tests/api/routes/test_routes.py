"""What a right request of each route gets, and what each wrong one is told."""

import json
import re
import time

import httpx
import msgspec
import pytest

from src.client.manager import ManagerClient
from src.protocol import ServiceStatus
from tests.support.openai_api import CHAT, COMPLETIONS, HELLO, check_error, events


def post(http: httpx.Client, path: str, body: bytes, content_type: str | None = "application/json") -> httpx.Response:
    return http.post(path, content=body, headers={"Content-Type": content_type} if content_type is not None else {})


# What a right request gets


def test_a_chat_is_answered(http):
    answer = http.post(CHAT, json={**HELLO, "model": "echo"}).json()
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == "echo"
    assert abs(answer["created"] - time.time()) < 60
    [choice] = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "user: hello\n", "refusal": None}
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (12, 13)
    assert answer["usage"]["total_tokens"] == 25


def test_a_text_is_completed(http):
    answer = http.post(COMPLETIONS, json={"prompt": "abc", "max_tokens": 2}).json()
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["choices"] == [{"index": 0, "text": "ab", "logprobs": None, "finish_reason": "length"}]
    assert answer["usage"]["completion_tokens"] == 2


def test_a_list_of_tokens_is_completed(http):
    assert http.post(COMPLETIONS, json={"prompt": [104, 105]}).json()["choices"][0]["text"] == "hi"


@pytest.mark.parametrize(("path", "body"), [(CHAT, HELLO), (COMPLETIONS, {"prompt": "grüße 😀"})])
def test_a_stream_says_the_same_as_the_plain_reply(http, path, body):
    plain = http.post(path, json=body).json()
    streamed = http.post(path, json={**body, "stream": True, "stream_options": {"include_usage": True}})
    assert streamed.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert streamed.headers["cache-control"] == "no-cache"
    assert streamed.headers["x-request-id"]
    *chunks, usage, done = events(streamed)
    assert done == "[DONE]"
    assert (usage["choices"], usage["usage"]) == ([], plain["usage"])
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in [*chunks, usage]}) == 1
    choices = [chunk["choices"][0] for chunk in chunks]
    text = "".join(choice["delta"].get("content", "") if path == CHAT else choice["text"] for choice in choices)
    [whole] = plain["choices"]
    assert text == (whole["message"]["content"] if path == CHAT else whole["text"])
    assert choices[-1]["finish_reason"] == whole["finish_reason"]


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(http):
    [choice] = http.post(COMPLETIONS, json={"prompt": "one two three", "stop": [" three", " t"]}).json()["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("one", "stop")


def test_max_tokens_larger_than_the_context_means_up_to_its_end(http):
    answer = http.post(COMPLETIONS, json={"prompt": "abc", "max_tokens": 2**31 - 1, "ignore_eos": True}).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == 256


# The other routes


def test_health_names_the_models_that_are_ready(http):
    response = http.get("/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok", "models_ready": ["echo"]})


def test_health_names_what_of_the_models_folder_may_not_be_read(http, monkeypatch):
    asked = ManagerClient.status

    def status(self: ManagerClient, *, detail: bool = False) -> ServiceStatus:
        return msgspec.structs.replace(asked(self, detail=detail), unreadable=["It hangs"])

    monkeypatch.setattr(ManagerClient, "status", status)
    assert http.get("/health").json() == {"status": "ok", "models_ready": ["echo"], "unreadable": ["It hangs"]}


def test_a_model_has_openais_fields_and_ours(http):
    [model] = http.get("/v1/models").json()["data"]
    assert model == {
        "id": "echo",
        "object": "model",
        "created": 0,
        "owned_by": "local",
        "state": "ready",
        "reason": None,
        "engine": "echo",
        "format": "echo",
        "size_bytes": 0,
        **dict.fromkeys(("context_length", "context_window", "max_model_len"), 256),
        "max_input_tokens": 255,
        "note": None,
        "places": [],
        "aliases": [],
        "adapters": [],
        "parent": None,
        "architecture": None,
        "parameters": None,
        "quantisation": None,
        "trained_context_length": 2**20,
        "capabilities": ["mean_embeddings"],
        "engines": {
            "mlx": "it does not read the format echo",
            "vllm": "it does not read the format echo",
            "llama_cpp": "it does not read the format echo",
            "echo": None,
        },
        "pinned": False,
        "progress": None,
    }
    assert http.get("/v1/models").json()["object"] == "list"
    assert http.get("/v1/models/echo").json() == model
    assert http.post("/v1/models/load", json={"model_name": "echo"}).json() == model


# What a wrong request is told


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/v1/models/load"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"not json",
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a": 1} x',
        b"\xef\xbb\xbf{}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": "\\ud800"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\xff"}',
        b'{"a": "\x00"}',
        b'{"a": "\n"}',
        b"null",
        b"true",
        b"5",
        b'"text"',
        b"[]",
        b'[{"messages": []}]',
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 40_000,
    ],
    ids=range(27),
)
def test_a_body_that_is_no_json_object_is_refused(http, path, body):
    check_error(post(http, path, body), 400, "invalid_json")


@pytest.mark.parametrize(
    ("path", "body", "code", "param"),
    [
        (CHAT, {}, "missing_required_parameter", "messages"),
        (CHAT, {**HELLO, "temperature": -3}, "invalid_value", "temperature"),
        (CHAT, {**HELLO, "stream": True, "max_tokens": 0}, "invalid_value", "max_tokens"),
        (CHAT, {**HELLO, "n": 0}, "invalid_value", "n"),
        (CHAT, {**HELLO, "n": True}, "invalid_value", "n"),
        (CHAT, {**HELLO, "logprobs": 1}, "invalid_value", "logprobs"),
        (CHAT, {**HELLO, "logit_bias": {"300": 1}}, "invalid_value", "logit_bias"),
        (CHAT, {**HELLO, "stop_token_ids": [300], "stream": True}, "invalid_value", "stop_token_ids"),
        (CHAT, {**HELLO, "audio": {"voice": "alloy"}, "stream": True}, "unsupported_parameter", "audio"),
        (CHAT, {**HELLO, "seed": 2**64}, "invalid_value", "seed"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "unsupported_content", "messages[0].content[0]"),
        (COMPLETIONS, {}, "missing_required_parameter", "prompt"),
        (COMPLETIONS, {"prompt": []}, "invalid_value", "prompt"),
        (COMPLETIONS, {"prompt": [300]}, "invalid_value", "prompt"),
        (COMPLETIONS, {"prompt": [300], "stream": True}, "invalid_value", "prompt"),
        ("/v1/models/load", {}, "missing_required_parameter", "model_name"),
        ("/v1/models/load", {"model_name": 5}, "invalid_value", "model_name"),
    ],
)
def test_a_wrong_field_is_refused_by_name(http, path, body, code, param):
    check_error(http.post(path, json=body), 400, code, param)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "param", "length"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "x" * 249}]}, "messages", "256"),
        (CHAT, {"messages": [{"role": "user", "content": "x" * 100}] * 5}, "messages", "535"),
        (CHAT, {"messages": [{"role": "user", "content": "x" * 100_000}]}, "messages", "more than 256"),
        (COMPLETIONS, {"prompt": "x" * 256}, "prompt", "256"),
        (COMPLETIONS, {"prompt": "x" * 100_000}, "prompt", "more than 256"),
        (COMPLETIONS, {"prompt": [120] * 1000}, "prompt", "1000"),
    ],
)
def test_a_prompt_too_long_is_refused_with_both_numbers_before_a_stream_begins(http, path, body, param, length, stream):
    error = check_error(http.post(path, json={**body, "stream": stream}), 400, "context_length_exceeded", param)
    assert re.match(rf"This model's maximum context length is 256 tokens. However, your .*? {length} tokens.", error["message"])


def test_the_longest_prompt_that_fits_is_answered(http):
    answer = http.post(COMPLETIONS, json={"prompt": "x" * 255}).json()
    assert answer["choices"] == [{"index": 0, "text": "x", "logprobs": None, "finish_reason": "length"}]


BAD_NAMES = ["gpt-4", "../x", "../../etc/passwd", "/etc/passwd", "\0", "echo\0", "echo/", "./echo", "ECHO", "x" * 10_000, "é😀" * 100, " "]


@pytest.mark.parametrize("name", BAD_NAMES, ids=range(len(BAD_NAMES)))
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/v1/models/load"])
def test_an_unknown_model_is_refused_with_the_names_of_those_there_are(http, path, name):
    body = {"model_name": name} if path == "/v1/models/load" else {**HELLO, "prompt": "x", "model": name, "stream": True}
    error = check_error(http.post(path, json=body), 404, "model_not_found", "model", told="Models here: echo.")
    assert len(error["message"]) < 1000


@pytest.mark.parametrize("path", ["/v1", "/v2/models", "/v1/models/", "/v1//models", "/health/", "/v1/chat/x", "/.env", "/%00"])
def test_an_unknown_route_is_told_as_such(http, path):
    check_error(http.get(path), 404, "not_found", told="GET /")
    check_error(http.post(path, json={}), 404, "not_found", told="POST /")


@pytest.mark.parametrize(
    ("method", "path", "meant"),
    [
        *(("POST", path, CHAT) for path in (f"{CHAT}/", "/v1//chat/completions", f"/v1{CHAT}", "/chat/completions", f"//v1/v1{CHAT}//")),
        *(("GET", path, "/v1/models") for path in ("/v1/models/", "/models", "//v1/models")),
        ("GET", "/v1/v1/models/a/b", "/v1/models/a/b"),
        ("GET", "/health/", "/health"),
        *((method, path, None) for method, path in (("GET", CHAT + "s"), ("POST", "/v1/"), ("POST", "/v1/models/"), ("GET", "/v1/chat/"))),
    ],
)
def test_a_route_that_a_base_url_has_spoilt_is_named(http, method, path, meant):
    message = check_error(http.request(method, path, json={}), 404, "not_found")["message"]
    assert message.partition("Did you mean ")[2].partition("?")[0] == (f"{method} {meant}" if meant else "")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, {"POST", "OPTIONS"}),
        ("DELETE", COMPLETIONS, {"POST", "OPTIONS"}),
        ("POST", "/health", {"GET", "HEAD", "OPTIONS"}),
        ("PUT", "/v1/models", {"GET", "HEAD", "OPTIONS"}),
        ("DELETE", "/v1/models/echo", {"GET", "HEAD", "OPTIONS"}),
        ("BREW", "/v1/system/status", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_a_wrong_method_is_told_with_those_allowed(http, method, path, allowed):
    response = http.request(method, path)
    check_error(response, 405, "method_not_allowed", told=method)
    assert set(response.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "nonsense"])
def test_a_body_of_another_type_is_refused(http, content_type):
    check_error(post(http, CHAT, json.dumps(HELLO).encode(), content_type), 415, "unsupported_media_type", told="application/json")


def test_a_charset_beside_the_type_is_fine(http):
    assert post(http, CHAT, json.dumps(HELLO).encode(), "application/json; charset=utf-8").status_code == 200


# Who asked, and what is kept of it


@pytest.mark.parametrize("given", ["a", "A-z_0.9", "x" * 128, "7f3a2b1c-0000-4000-8000-000000000000"])
def test_a_well_formed_request_id_is_given_back(http, given):
    assert http.get("/health", headers={"X-Request-ID": given}).headers["x-request-id"] == given
    assert http.get("/nowhere", headers={"X-Request-ID": given}).headers["x-request-id"] == given
    assert http.post(CHAT, json={**HELLO, "stream": True}, headers={"X-Request-ID": given}).headers["x-request-id"] == given


def test_each_request_without_an_id_gets_one_of_its_own(http):
    assert len({http.get("/health").headers["x-request-id"] for _ in range(10)}) == 10
