"""n: several choices of one prompt."""

import pytest

from tests.conformance.api import CHAT

pytestmark = pytest.mark.feature("n")


def test_n_choices_are_numbered_and_each_has_its_end(either):
    answer = either.chat(n=3, ignore_eos=True, max_tokens=6)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["length"] * 3


def test_the_prompt_counts_once_and_the_choices_together(either):
    one, three = either.chat(ignore_eos=True), either.chat(n=3, ignore_eos=True)
    assert three["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]
    assert three["usage"]["completion_tokens"] == 3 * one["usage"]["completion_tokens"]


def test_at_temperature_zero_all_choices_are_the_same(either):
    answer = either.chat(n=2)
    first, second = (choice["message"]["content"] for choice in answer["choices"])
    assert first == second


@pytest.mark.drawn
def test_with_a_seed_choices_differ_and_come_again(either):
    def draw() -> list[str]:
        return [choice["message"]["content"] for choice in either.chat(n=3, temperature=1.5, seed=7, ignore_eos=True)["choices"]]

    texts = draw()
    assert draw() == texts
    assert len(set(texts)) == 3


def test_text_completions_have_n_choices_too(either):
    answer = either.complete(n=2, ignore_eos=True)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]


def test_every_choice_of_a_stream_begins_with_its_role_and_ends_once(api):
    body = {"messages": [{"role": "user", "content": "Hello."}], "temperature": 0, "max_tokens": 6, "ignore_eos": True, "n": 3}
    stream = api.stream(CHAT, body)
    for index in range(3):
        own = [choice for chunk in stream.chunks for choice in chunk["choices"] if choice["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert [choice["finish_reason"] for choice in own][-1] == "length"
        assert sum(choice["finish_reason"] is not None for choice in own) == 1


def test_logprobs_belong_to_their_choice(either):
    answer = either.chat(n=2, logprobs=True)
    for choice in answer["choices"]:
        spelled = b"".join(bytes(entry["bytes"]) for entry in choice["logprobs"]["content"])
        assert spelled.decode(errors="replace") == choice["message"]["content"]


@pytest.mark.parametrize("count", [0, -1, 129, 10**6])
def test_too_few_and_too_many_are_refused(api, count):
    api.refuse(CHAT, {"messages": [{"role": "user", "content": "a"}], "n": count}, 400, "invalid_value", "n")
