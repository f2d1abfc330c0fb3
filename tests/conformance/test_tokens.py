"""Text to tokens and back, and the prompt that a chat becomes."""

import pytest

from tests.conformance.api import CHAT, answered, refused

pytestmark = pytest.mark.feature("tokenize")

TEXTS = ["The sea is wide.", "  two  spaces\n\tand a tab", "你好，世界 🌍", "1234567890", "<|im_start|>"]


@pytest.mark.parametrize("prefix", ["/v1", ""], ids=["ours", "vLLM's"])
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_text_comes_back_from_its_tokens(api, prefix, text):
    tokens = answered(api.post(f"{prefix}/tokenize", {"prompt": text, "add_special_tokens": False}))["tokens"]
    assert tokens
    assert answered(api.post(f"{prefix}/detokenize", {"tokens": tokens}))["prompt"] == text


def test_the_answer_has_vllms_fields(api):
    answer = answered(api.post("/v1/tokenize", {"prompt": "The sea is wide."}))
    assert answer["count"] == len(answer["tokens"])
    assert answer["max_model_len"] >= 256
    assert all(isinstance(token, int) for token in answer["tokens"])


def test_tokens_are_named_on_request(api):
    answer = answered(api.post("/v1/tokenize", {"prompt": "The sea", "return_token_strs": True, "add_special_tokens": False}))
    assert len(answer["token_strs"]) == answer["count"]
    assert "".join(answer["token_strs"]) == "The sea"


def test_a_prompts_count_is_what_a_completion_says(api):
    tokens = api.tokens("The sea is wide.")
    assert api.complete(tokens)["usage"]["prompt_tokens"] == len(tokens)
    with_special = answered(api.post("/v1/tokenize", {"prompt": "The sea is wide."}))["count"]
    assert api.complete("The sea is wide.")["usage"]["prompt_tokens"] == with_special


def test_a_chats_count_is_what_a_chat_completion_says(api):
    messages = [{"role": "user", "content": "Tell me about the sea."}]
    count = answered(api.post("/v1/tokenize", {"messages": messages}))["count"]
    assert api.ask(CHAT, {"messages": messages, "max_tokens": 1})["usage"]["prompt_tokens"] == count


def test_a_text_and_its_tokens_are_answered_alike(api):
    tokens = answered(api.post("/v1/tokenize", {"prompt": "The sea is wide."}))["tokens"]
    assert api.complete(tokens)["choices"] == api.complete("The sea is wide.")["choices"]


@pytest.mark.feature("chat template")
def test_the_rendered_prompt_is_what_a_chat_goes_on_from(api):
    messages = [{"role": "user", "content": "Tell me about the sea."}]
    rendered = answered(api.post("/v1/chat/template", {"messages": messages}))
    assert "Tell me about the sea." in rendered["prompt"]
    chat = api.ask(CHAT, {"messages": messages, "max_tokens": 8, "ignore_eos": True})
    text = api.complete(rendered["tokens"], max_tokens=8, ignore_eos=True)
    assert text["choices"][0]["text"] == chat["choices"][0]["message"]["content"]
    assert text["usage"]["prompt_tokens"] == chat["usage"]["prompt_tokens"] == rendered["count"]


@pytest.mark.feature("chat template")
def test_tools_are_in_the_rendered_prompt(api):
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
    body = {"messages": [{"role": "user", "content": "hello"}], "tools": [tool]}
    assert "get_weather" in answered(api.post("/v1/chat/template", body))["prompt"]


@pytest.mark.parametrize(
    ("path", "fields", "code", "param"),
    [
        ("/v1/tokenize", {}, "missing_required_parameter", "prompt"),
        ("/v1/tokenize", {"prompt": 5}, "invalid_value", "prompt"),
        ("/v1/tokenize", {"messages": []}, "invalid_value", "messages"),
        ("/v1/detokenize", {}, "missing_required_parameter", "tokens"),
        ("/v1/detokenize", {"tokens": "abc"}, "invalid_value", "tokens"),
        ("/v1/detokenize", {"tokens": [-1]}, "invalid_value", "tokens[0]"),
        ("/v1/detokenize", {"tokens": [2**31 - 1]}, "invalid_value", "tokens"),
        ("/v1/chat/template", {}, "missing_required_parameter", "messages"),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused_by_name(api, path, fields, code, param):
    refused(api.post(path, fields), 400, code, param)
