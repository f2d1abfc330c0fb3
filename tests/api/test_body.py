"""Fields that a route does not know are named in a header, whole and in parts, or refused where STRICT_FIELDS says so."""

import httpx
import pytest

from tests.support.in_process import InProcess
from tests.support.openai_api import CHAT, COMPLETIONS, HELLO, check_error

USER = {"role": "user", "content": "x"}
TEXT = {"prompt": "x", "max_tokens": 1}


def ignored(http: httpx.Client, path: str, body: dict) -> str | None:
    response = http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.headers.get("X-Ignored-Fields")


@pytest.fixture(scope="module")
def strict():
    with (
        InProcess(CONTEXT_LENGTH=256, STRICT_FIELDS="true") as server,
        server.http() as client,
    ):
        yield client


def test_a_request_of_known_fields_has_no_such_header(http):
    assert ignored(http, CHAT, {**HELLO, "max_tokens": 1}) is None


@pytest.mark.parametrize("stream", [False, True])
def test_unknown_fields_are_named_in_their_order(http, stream):
    assert ignored(http, CHAT, {**HELLO, "max_tokens": 1, "stream": stream, "colour": "red", "_size": [5]}) == "colour, _size"


def test_unknown_fields_within_others_are_named_with_their_place(http):
    messages = [{"role": "user", "content": [{"type": "text", "text": "a", "tone": 1}]}, {"role": "user", "content": "b", "mood": 2}]
    body = {"messages": messages, "max_tokens": 1, "stream_options": {"later": 1}}
    assert ignored(http, CHAT, body) == "stream_options.later, messages[0].content[0].tone, messages[1].mood"


def test_a_field_of_another_route_is_named_as_any_other(http):
    assert ignored(http, CHAT, {**HELLO, "max_tokens": 1, "prompt": "x"}) == "prompt"
    assert ignored(http, COMPLETIONS, {**TEXT, "messages": [], "model_name": "echo"}) == "messages, model_name"


def test_an_error_names_them_too(http):
    response = http.post(CHAT, json={**HELLO, "colour": "red", "model": "gpt-4"})
    assert (response.status_code, response.headers["X-Ignored-Fields"]) == (404, "colour")


def test_the_routes_for_models_name_them_too(http):
    assert ignored(http, "/v1/models/load", {"model_name": "echo", "engine": "mlx"}) == "engine"


def test_what_openai_takes_without_effect_is_not_named(http, strict):
    body = {
        "user": "u", "store": True, "metadata": {"a": "b"}, "service_tier": "flex", "safety_identifier": "s", "prompt_cache_key": "k",
    }  # fmt: skip
    for client in (http, strict):
        assert ignored(client, CHAT, {**HELLO, "max_tokens": 1, **body}) is None
        assert ignored(client, COMPLETIONS, {**TEXT, **body}) is None


def test_null_and_what_asks_for_nothing_are_not_named(http, strict):
    for client in (http, strict):
        assert ignored(client, COMPLETIONS, {**TEXT, "colour": None, "best_of": 1, "grammar": ""}) is None


def test_of_two_spellings_of_one_field_the_one_not_used_is_named(http):
    assert ignored(http, COMPLETIONS, {**TEXT, "repeat_penalty": 1.5}) is None
    assert ignored(http, COMPLETIONS, {**TEXT, "repeat_penalty": 1.5, "repetition_penalty": 1.1}) == "repeat_penalty"


def test_the_header_is_bounded(http):
    named = ignored(http, COMPLETIONS, {**TEXT, **{f"x{number}": 1 for number in range(5000)}})
    assert named == ", ".join(f"x{number}" for number in range(20)) + ", ..."
    assert ignored(http, COMPLETIONS, {**TEXT, "y" * 10_000: 1}) == "y" * 64


def test_a_name_cannot_break_the_header(http):
    named = ignored(http, COMPLETIONS, {**TEXT, "a\r\nX-Own: 1": 1, "ü, b": 1, "": 1})
    assert named == "a??X-Own??1, ???b, ?"


THINKS = {"thinking": {"type": "enabled", "budget_tokens": 2048}, "output_config": {"effort": "low"}, "context_management": {"edits": []}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        (CHAT, {"messages": [USER], "max_tokens": 1, "reasoning_effort": "high", "colour": 1}, "colour, reasoning_effort"),
        (CHAT, {"messages": [USER], "max_tokens": 1, "chat_template_kwargs": {"thinking": True}}, "chat_template_kwargs.thinking"),
        ("/v1/responses", {"input": "x", "max_output_tokens": 1, "reasoning": {"effort": "low"}}, "reasoning.effort"),
        (
            "/v1/messages",
            {"messages": [USER], "max_tokens": 1, **THINKS},
            "context_management, thinking.budget_tokens, thinking, output_config.effort",
        ),
    ],
)
def test_what_is_asked_of_a_model_that_does_not_reason_is_named(http, path, body, named, stream):
    assert ignored(http, path, {**body, "stream": stream}) == named


def test_so_it_is_where_no_answer_is_asked_for_or_it_is_repeated(http):
    body = {"messages": [USER], "reasoning_effort": "high"}
    assert ignored(http, "/v1/chat/template", body) == "reasoning_effort"
    assert ignored(http, "/v1/messages/count_tokens", {"messages": [USER], "thinking": {"type": "enabled"}}) == "thinking"
    assert ignored(http, "/v1/messages/count_tokens", {"messages": [USER], "max_tokens": 5}) is None
    for _ in range(2):
        response = http.post(CHAT, json={**body, "max_tokens": 1}, headers={"Idempotency-Key": "of-an-effort"})
        assert (response.status_code, response.headers["X-Ignored-Fields"]) == (200, "reasoning_effort")


def test_a_hint_to_a_model_that_does_not_reason_is_refused_where_the_setting_says_so(strict):
    told = "This model does not reason, so reasoning_effort has no meaning for it. Leave it out."
    check_error(strict.post(CHAT, json={**HELLO, "reasoning_effort": "low"}), 400, "unsupported_parameter", "reasoning_effort", told=told)
    body = {"messages": [USER], "max_tokens": 1, "thinking": {"type": "enabled"}}
    assert "so thinking has no meaning" in strict.post("/v1/messages", json=body).json()["error"]["message"]


def test_unknown_fields_are_refused_by_name_where_the_setting_says_so(strict):
    response = strict.post(COMPLETIONS, json={**TEXT, "colour": 1})
    check_error(response, 400, "unknown_parameter", "colour", told="Unknown field, or one without effect: colour. (STRICT_FIELDS is on.)")
    # By its own name, also where a chat has a field of that name, which Responses call input.
    check_error(strict.post("/v1/responses", json={"input": "x", "messages": [1]}), 400, "unknown_parameter", "messages")
    check_error(strict.post(CHAT, json={**HELLO, "stream": True, "prompt": "x"}), 400, "unknown_parameter", "prompt")
    nested = {"messages": [{"role": "user", "content": "b", "mood": 2}]}
    check_error(strict.post(CHAT, json=nested), 400, "unknown_parameter", "messages[0].mood")
    check_error(strict.post("/v1/models/load", json={"model_name": "echo", "x": 1}), 400, "unknown_parameter", "x")


def test_with_the_setting_a_request_of_known_fields_is_answered(strict):
    assert ignored(strict, CHAT, {**HELLO, "max_tokens": 1, "temperature": 0, "repeat_penalty": 1.1}) is None


def test_a_suffix_is_refused_where_it_cannot_be_honoured(http):
    check_error(http.post(COMPLETIONS, json={**TEXT, "suffix": "y"}), 400, "unsupported_parameter", "suffix", told="fill-in-the-middle")
    check_error(http.post(COMPLETIONS, json={**TEXT, "suffix": "y", "echo": True}), 400, "invalid_value", "suffix")
    check_error(http.post(COMPLETIONS, json={"prompt": [120], "suffix": "y"}), 400, "invalid_value", "suffix")
    check_error(http.post(CHAT, json={**HELLO, "suffix": "y"}), 400, "unsupported_parameter", "suffix")
    check_error(http.post(COMPLETIONS, json={**TEXT, "best_of": 2}), 400, "unsupported_parameter", "best_of")
    assert ignored(http, COMPLETIONS, {**TEXT, "suffix": ""}) is None
