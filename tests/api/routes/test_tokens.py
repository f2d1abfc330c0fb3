"""Text to tokens and back over HTTP, with vLLM's fields and answers, and what a chat template makes of messages."""

import pytest

from tests.support.openai_api import check_error

MESSAGES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "grüße"}]
RENDERED = "system: Be kind.\nuser: grüße\n"
BOTH = pytest.mark.parametrize("prefix", ["", "/v1"])


@BOTH
def test_a_text_becomes_tokens(http, prefix):
    answer = http.post(f"{prefix}/tokenize", json={"model": "echo", "prompt": "hé"}).json()
    assert answer == {"count": 3, "max_model_len": 256, "tokens": [104, 195, 169], "token_strs": None}


@BOTH
def test_tokens_become_text(http, prefix):
    answer = http.post(f"{prefix}/detokenize", json={"model": "echo", "tokens": [104, 195, 169, 256]}).json()
    assert answer == {"prompt": "hé<|end|>"}


def test_tokens_are_named_where_that_is_asked_for(http):
    answer = http.post("/tokenize", json={"prompt": "hi<|end|>", "return_token_strs": True}).json()
    assert answer["token_strs"] == ["h", "i", "<|end|>"]


def test_an_empty_text_has_no_tokens_and_no_tokens_are_an_empty_text(http):
    assert http.post("/tokenize", json={"prompt": ""}).json()["count"] == 0
    assert http.post("/detokenize", json={"tokens": []}).json() == {"prompt": ""}


def test_a_chat_becomes_the_tokens_of_its_rendered_prompt(http):
    answer = http.post("/tokenize", json={"messages": MESSAGES}).json()
    assert bytes(answer["tokens"]).decode() == RENDERED
    assert answer["count"] == len(RENDERED.encode())


def test_a_template_shows_the_prompt_that_a_chat_would_be_given(http):
    answer = http.post("/v1/chat/template", json={"messages": MESSAGES, "temperature": 0}).json()
    assert answer == {
        "prompt": RENDERED,
        "count": len(RENDERED.encode()),
        "max_model_len": 256,
        "tokens": list(RENDERED.encode()),
    }
    usage = http.post("/v1/chat/completions", json={"messages": MESSAGES, "max_tokens": 1}).json()["usage"]
    assert usage["prompt_tokens"] == answer["count"]


def test_a_special_tokens_text_in_a_message_stays_text(http):
    answer = http.post("/v1/chat/template", json={"messages": [{"role": "user", "content": "a<|end|>b"}]}).json()
    assert answer["prompt"] == "user: a<|end|>b\n"
    assert 256 not in answer["tokens"]


def test_a_text_longer_than_the_context_is_counted_all_the_same(http):
    assert http.post("/tokenize", json={"prompt": "x" * 1000}).json()["count"] == 1000


def test_what_is_wrong_is_refused_by_name(http):
    check_error(http.post("/tokenize", json={}), 400, "missing_required_parameter", "prompt")
    check_error(http.post("/tokenize", json={"prompt": 5}), 400, "invalid_value", "prompt")
    check_error(http.post("/tokenize", json={"messages": []}), 400, "invalid_value", "messages")
    check_error(http.post("/detokenize", json={}), 400, "missing_required_parameter", "tokens")
    check_error(http.post("/detokenize", json={"tokens": [257]}), 400, "invalid_value", "tokens", told="vocabulary of 257")
    check_error(http.post("/detokenize", json={"tokens": [-1]}), 400, "invalid_value", "tokens[0]")
    check_error(http.post("/v1/chat/template", json={"messages": "x"}), 400, "invalid_value", "messages")
    check_error(http.post("/v1/tokenize", json={"model": "gpt-4", "prompt": "x"}), 404, "model_not_found", "model")


@BOTH
def test_the_tokenizer_is_described_as_vllm_does(http, prefix):
    answer = http.get(f"{prefix}/tokenizer_info").json()
    assert answer["eos_token"] == "<|end|>"
    assert (answer["bos_token"], answer["pad_token"]) == (None, None)
    assert "{{" in answer["chat_template"]
    assert (answer["vocab_size"], answer["model_max_length"]) == (257, 256)
    assert http.get(f"{prefix}/tokenizer_info", params={"model": "echo"}).json() == answer
    check_error(http.get(f"{prefix}/tokenizer_info", params={"model": "none"}), 404, "model_not_found", "model")
