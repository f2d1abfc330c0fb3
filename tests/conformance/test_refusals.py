"""Requests that are refused: the status, the code and the param of each, whether it asks for a stream or not."""

import json

import pytest

from tests.conformance.api import CHAT, COMPLETIONS, refused

pytestmark = pytest.mark.feature("refusals")

HELLO = {"messages": [{"role": "user", "content": "hello"}]}
TEXT = {"prompt": "hello"}
BOTH = pytest.mark.parametrize(("path", "body"), [(CHAT, HELLO), (COMPLETIONS, TEXT)], ids=["chat", "text"])


@BOTH
@pytest.mark.parametrize(
    ("field", "values"),
    {
        "temperature": (-0.1, "1", True),
        "top_p": (-0.1, 1.1, "1", False),
        "top_k": (-2, 1.5, "40"),
        "min_p": (-0.1, 1.1),
        "presence_penalty": (-2.1, 2.1, "0"),
        "frequency_penalty": (-2.1, 2.1, True),
        "repetition_penalty": (0, -1, 2.1),
        "max_tokens": (0, -2, 1.5, "16", 2**31),
        "seed": (1.5, "1", 2**63, -(2**63) - 1),
        "n": ("2", 1.5, True),
        "stop": (5, [5], ["a"] * 17, "x" * 257),
        "stop_token_ids": ([-1], ["a"], 5, list(range(65))),
        "min_tokens": (-1, "1", 0.5),
        "ignore_eos": ("yes", 1),
        "include_stop_str_in_output": ("yes", 1),
        "logit_bias": ([], 5, {"65": 101}, {"65": -101}, {"a": 1}, {"65": "1"}),
        "stream_options": (5, [], "usage"),
        "model": (5, "", []),
    }.items(),
)
def test_a_value_out_of_range_or_of_a_wrong_type_is_named(api, path, body, field, values):
    for value in values:
        asked = {"max_tokens": 4, **body, field: value}  # few, of a server that answers it all the same
        response = api.post(path, asked)
        param = response.json()["error"]["param"]
        refused(response, 400, "invalid_value", param)
        assert param.startswith(field)
        # As a stream it is refused in the same words.
        assert api.post(path, {**asked, "stream": True}).json() == response.json()


@BOTH
def test_stream_has_to_be_a_boolean(api, path, body):
    refused(api.post(path, {**body, "stream": "yes"}), 400, "invalid_value", "stream")


@BOTH
def test_a_request_without_its_prompt_is_told_what_is_missing(api, path, body):
    api.refuse(path, {}, 400, "missing_required_parameter", next(iter(body)))


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("hello", "messages"),
        ({"role": "user"}, "messages"),
        (["hello"], "messages[0]"),
        ([{"content": "hello"}], "messages[0].role"),
        ([{"role": "king", "content": "hello"}], "messages[0].role"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([*HELLO["messages"], {"role": "user", "content": [{"type": "text"}]}], "messages[1].content[0].text"),
        ([{"role": "user", "content": [{"text": "hello"}]}], "messages[0].content[0].type"),
    ],
    ids=lambda value: json.dumps(value)[:40] if not isinstance(value, str) else value,
)
def test_a_mistake_in_messages_is_named_by_its_place(api, messages, param):
    code = "missing_required_parameter" if param.rsplit(".", 1)[-1] in ("text", "type") else "invalid_value"
    if param == "messages[0].role" and "role" not in messages[0]:
        code = "missing_required_parameter"
    api.refuse(CHAT, {"messages": messages}, 400, code, param)


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ([], "prompt"),
        (5, "prompt"),
        ({}, "prompt"),
        ([1, "a"], "prompt[1]"),
        ([-1], "prompt[0]"),
        ([1.5], "prompt[0]"),
        (["a", 5], "prompt[1]"),
        ([[1], []], "prompt[1]"),
        ([[1], ["a"]], "prompt[1][0]"),
        ([2**31 - 1], "prompt"),
        (["a"] * 65, "prompt"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_mistake_in_a_prompt_is_named_by_its_place(api, prompt, param):
    api.refuse(COMPLETIONS, {"prompt": prompt}, 400, "invalid_value", param)


@BOTH
@pytest.mark.parametrize(("field", "value"), [("logit_bias", {"9999999": 1}), ("stop_token_ids", [9999999])])
def test_a_token_that_the_model_does_not_have_is_refused(api, path, body, field, value):
    api.refuse(path, {**body, field: value}, 400, "invalid_value", field)


@BOTH
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("best_of", 2),
        ("prompt_logprobs", 1),
        ("bad_words", ["no"]),
        ("prompt_embeds", "abc"),
        ("typical_p", 0.5),
        ("mirostat", 2),
        ("dry_multiplier", 0.5),
        ("xtc_probability", 0.5),
        ("grammar", 'root ::= "a"'),
        ("json_schema", {"type": "object"}),
        ("chat_template", "{{ messages }}"),
    ],
)
@pytest.mark.feature("fields that cannot be honoured")
def test_a_known_field_that_cannot_be_honoured_is_refused_by_name(api, path, body, field, value):
    api.refuse(path, {**body, field: value}, 400, "unsupported_parameter", field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("functions", [{"name": "f"}]),
        ("function_call", {"name": "f"}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("prediction", {"type": "content", "content": "abc"}),
        ("web_search_options", {}),
    ],
)
@pytest.mark.feature("fields that cannot be honoured")
def test_a_known_field_of_chats_that_cannot_be_honoured_is_refused_by_name(api, field, value):
    api.refuse(CHAT, {**HELLO, field: value}, 400, "unsupported_parameter", field)


@pytest.mark.feature("fields that cannot be honoured")
def test_a_suffix_is_refused_where_the_model_cannot_fill_in_the_middle(api):
    api.refuse(COMPLETIONS, {**TEXT, "suffix": " end"}, 400, "unsupported_parameter", "suffix")


@pytest.mark.feature("fields that cannot be honoured")
def test_a_pointer_to_what_is_taken_instead_stands_in_the_message(api):
    api.refuse(CHAT, {**HELLO, "grammar": 'root ::= "a"'}, 400, "unsupported_parameter", "grammar", told="guided_grammar")
    api.refuse(CHAT, {**HELLO, "json_schema": {}}, 400, "unsupported_parameter", "json_schema", told="response_format")


@BOTH
@pytest.mark.feature("errors")
def test_a_model_that_is_not_there_is_not_found(api, path, body):
    api.refuse(path, {**body, "model": "no-such-model"}, 404, "model_not_found", "model", told="no-such-model")


@BOTH
@pytest.mark.feature("errors")
def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(api, path, body):
    long = "word " * 150_000
    prompt = {"messages": [{"role": "user", "content": long}]} if path == CHAT else {"prompt": long}
    api.refuse(path, prompt, 400, "context_length_exceeded", next(iter(prompt)), told="tokens")


@BOTH
@pytest.mark.feature("errors")
@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b'{"a": NaN}', b"{'a': 1}", b'{"a": "\\ud800"}', b"[" * 100_000],
    ids=lambda data: repr(data[:12]),
)
def test_a_body_that_is_no_json_object_is_refused(api, path, body, data):
    response = api.http.post(path, content=data, headers={"Content-Type": "application/json"})
    refused(response, 400, "invalid_json", None)


@BOTH
@pytest.mark.feature("errors")
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None])
def test_a_body_of_another_media_type_is_refused(api, path, body, kind):
    headers = {"Content-Type": kind} if kind else {}
    response = api.http.post(path, content=json.dumps(body).encode(), headers=headers)
    refused(response, 415, "unsupported_media_type", None)


@pytest.mark.feature("errors")
@pytest.mark.parametrize("path", ["/v1", "/v1/chat", "/v2/chat/completions", "/v1/models/a/b/c"])
def test_a_route_that_is_not_there_is_not_found(api, path):
    response = api.http.post(path, json={}) if "models" not in path else api.http.get(path)
    assert response.status_code == 404
    refused(response, 404, response.json()["error"]["code"], response.json()["error"]["param"])
    assert response.json()["error"]["code"] in ("not_found", "model_not_found")


@pytest.mark.feature("errors")
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_a_wrong_method_is_refused_and_the_right_one_is_told(api, path, method):
    response = api.http.request(method, path)
    refused(response, 405, "method_not_allowed", None)
    assert "POST" in response.headers["allow"]


@BOTH
@pytest.mark.feature("errors")
def test_a_body_that_is_too_large_is_refused(api, path, body):
    # Nine megabytes: beyond the limit of every server that has one, and never a prompt.
    data = json.dumps({**body, "metadata": {"x": "y" * 9_000_000}}).encode()
    response = api.http.post(path, content=data, headers={"Content-Type": "application/json"})
    refused(response, 413, "request_too_large", None)


@pytest.mark.feature("errors")
def test_headers_that_are_too_large_are_refused(api):
    response = api.http.get("/v1/models", headers={"X-Long": "a" * 70_000})
    refused(response, 431, "headers_too_large", None)


@pytest.mark.feature("errors")
def test_an_address_that_is_too_long_is_refused(api):
    response = api.http.get("/v1/models?" + "a" * 9000)
    refused(response, 414, "uri_too_long", None)


@pytest.mark.feature("errors")
def test_an_error_tells_nothing_of_what_was_sent(api):
    secret = "canary-19d2"
    for body in ({"messages": secret}, {"messages": [{"role": secret, "content": ""}]}, {**HELLO, "temperature": secret}):
        assert secret not in api.post(CHAT, body).text


@pytest.mark.feature("errors")
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/v1/nothing"])
def test_an_error_is_of_a_type_that_says_whose_fault_it_is(api, path):
    assert api.post(path, {"messages": 1, "prompt": 2.5}).json()["error"]["type"] == "invalid_request_error"
