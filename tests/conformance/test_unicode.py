"""Text that is no ASCII: never broken, however tokens cut its characters."""

import pytest

from tests.conformance.api import CHAT

pytestmark = pytest.mark.feature("UTF-8")

TEXTS = ["你好，世界！这是一个测试。", "👩‍👩‍👧‍👦🏳️‍🌈🇩🇪👍🏽", "Ωμέγα Жизнь שלום مرحبا", "a\u0301e\u0308 ﬀ \u200b ½", "𐍈𝄞🌍"]
EACH = pytest.mark.parametrize("text", TEXTS, ids=["Chinese", "emoji", "scripts", "combining", "astral"])


@EACH
def test_a_prompt_is_echoed_as_it_was(either, text):
    answer = either.complete(text, echo=True, max_tokens=1)
    assert answer["choices"][0]["text"].startswith(text)


@EACH
def test_an_answer_of_such_text_is_whole(either, text):
    answer = either.chat("Say it.", guided_choice=[text], max_tokens=200)
    assert answer["choices"][0]["message"]["content"] == text
    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("text", TEXTS[:2], ids=["Chinese", "emoji"])
def test_no_streamed_piece_of_it_has_a_replacement_character(api, text):
    body = {"messages": [{"role": "user", "content": "Say it."}], "guided_choice": [text], "max_tokens": 200, "temperature": 0}
    pieces = [chunk["choices"][0]["delta"].get("content") or "" for chunk in api.stream(CHAT, body).chunks]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("count", range(1, 9))
def test_an_answer_that_is_cut_within_a_character_shows_no_half_of_it(either, count):
    answer = either.chat("Say it.", guided_choice=[TEXTS[1]], max_tokens=count)
    content = answer["choices"][0]["message"].get("content") or ""
    assert TEXTS[1].startswith(content)
    assert answer["usage"]["completion_tokens"] <= count


@EACH
def test_such_text_is_taken_as_a_stop_string(either, text):
    answer = either.complete("a", guided_choice=[f"1{text}2"], stop=[text], max_tokens=200)
    assert answer["choices"][0]["text"] == "1"
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_the_json_of_an_answer_is_utf8(api):
    response = api.post(CHAT, {"messages": [{"role": "user", "content": TEXTS[0]}], "max_tokens": 1})
    assert response.headers["content-type"].startswith("application/json")
    response.content.decode("utf-8")
