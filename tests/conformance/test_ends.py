"""How an answer ends: stop strings, end tokens, least and most lengths."""

import pytest

pytestmark = pytest.mark.feature("stop")

LONG = {"max_tokens": 32, "ignore_eos": True}


def whole(api) -> str:
    """What the model says, whatever it is; long enough to be cut anywhere."""
    text = api.chat(**LONG)["choices"][0]["message"]["content"]
    assert len(text) > 20
    return text


def said(answer: dict) -> str:
    return answer["choices"][0]["message"].get("content") or ""


@pytest.mark.parametrize("place", [(0, 1), (1, 4), (5, 12), (9, 11), (13, 20)], ids=str)
def test_a_stop_string_at_any_border_of_tokens_ends_the_answer_and_is_no_part_of_it(either, place):
    text = whole(either)
    stop = text[slice(*place)]
    answer = either.chat(**LONG, stop=stop)
    assert said(answer) == text[: text.index(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_the_first_of_several_stop_strings_ends_the_answer(either):
    text = whole(either)
    stops = [text[12:15], text[4:8], "never said, for sure"]
    answer = either.chat(**LONG, stop=stops)
    assert said(answer) == text[: min(text.index(stop) for stop in stops[:2])]


def test_sixteen_stop_strings_are_taken(either):
    stops = [f"never said {number}" for number in range(16)]
    assert said(either.chat(**LONG, stop=stops)) == said(either.chat(**LONG))


def test_a_stop_string_that_begins_but_does_not_end_is_said(either):
    text = whole(either)
    assert said(either.chat(**LONG, stop=text[-3:] + "\x00 never")) == text


def test_no_piece_of_a_stop_string_is_streamed(api):
    text = whole(api)
    stop = text[6:14]
    body = {"messages": [{"role": "user", "content": "Tell me about the sea."}], "temperature": 0, **LONG, "stop": [stop]}
    streamed = ""
    for chunk in api.stream("/v1/chat/completions", body).chunks:
        streamed += chunk["choices"][0]["delta"].get("content") or ""
        assert text[: text.index(stop)].startswith(streamed)


def test_text_completions_stop_too(either):
    text = either.complete(**LONG)["choices"][0]["text"]
    stop = text[7:10]
    answer = either.complete(**LONG, stop=[stop])
    assert answer["choices"][0]["text"] == text[: text.index(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.feature("include_stop_str_in_output")
def test_a_stop_string_may_be_asked_for_in_the_answer(either):
    text = whole(either)
    stop = text[5:9]
    answer = either.chat(**LONG, stop=[stop], include_stop_str_in_output=True)
    assert said(answer) == text[: text.index(stop)] + stop
    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.feature("max_tokens")
@pytest.mark.parametrize("count", [1, 2, 17])
def test_an_answer_has_at_most_max_tokens(either, count):
    answer = either.chat(max_tokens=count, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == count
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.feature("max_tokens")
def test_a_shorter_answer_is_the_longer_ones_beginning(either):
    assert whole(either).startswith(said(either.chat(max_tokens=9, ignore_eos=True)).rstrip("\ufffd"))


@pytest.mark.feature("ignore_eos")
def test_with_ignore_eos_an_answer_goes_on_to_its_bound(either):
    answer = either.chat("Say hi.", max_tokens=120, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 120
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.feature("min_tokens")
@pytest.mark.parametrize("count", [1, 30, 60])
def test_an_answer_has_at_least_min_tokens(either, count):
    assert either.chat("Say hi.", min_tokens=count, max_tokens=64)["usage"]["completion_tokens"] >= count


@pytest.mark.feature("min_tokens")
def test_a_stop_string_waits_for_min_tokens_as_well(either):
    text = whole(either)
    answer = either.chat(**LONG, stop=[text[0]], min_tokens=8)
    assert answer["usage"]["completion_tokens"] >= 8


@pytest.mark.feature("stop_token_ids")
def test_a_stop_token_ends_the_answer_and_is_no_part_of_it(either):
    # Any id will do: a bias makes it the one that is drawn.
    answer = either.chat(logit_bias={"65": 100}, stop_token_ids=[65], max_tokens=8)
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert said(answer) == ""
    assert answer["usage"]["completion_tokens"] == 1


@pytest.mark.feature("stop_token_ids")
def test_a_stop_token_that_is_not_drawn_ends_nothing(either):
    answer = either.chat(logit_bias={"65": 100}, stop_token_ids=[66], max_tokens=8)
    assert answer["usage"]["completion_tokens"] == 8
    assert answer["choices"][0]["finish_reason"] == "length"
