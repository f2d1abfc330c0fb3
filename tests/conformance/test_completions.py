"""Text completions: every form of a prompt, several of them, and echo."""

import pytest

from tests.conformance.api import COMPLETIONS

pytestmark = pytest.mark.feature("text completions")

TOKENS = [72, 101, 108, 108, 111, 44, 65, 66]  # in every vocabulary


def test_an_answer_has_the_fields_of_openais_api(either, api):
    answer = either.complete()
    assert answer["model"] == api.model
    (choice,) = answer["choices"]
    assert choice["index"] == 0
    assert isinstance(choice["text"], str)
    assert choice["logprobs"] is None
    assert choice["finish_reason"] in ("stop", "length")
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]


def test_the_object_is_a_text_completion(api):
    answer = api.complete()
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl")


def test_a_prompt_of_token_ids_has_as_many_tokens(either):
    assert either.complete(TOKENS)["usage"]["prompt_tokens"] == len(TOKENS)


def test_a_list_of_one_prompt_is_the_prompt(either):
    assert either.complete(["The sea is"])["choices"] == either.complete("The sea is")["choices"]


def test_a_list_of_one_token_list_is_the_token_list(either):
    assert either.complete([TOKENS])["choices"] == either.complete(TOKENS)["choices"]


@pytest.mark.feature("several prompts")
def test_a_list_of_strings_is_answered_in_its_order(either):
    prompts = ["The sea is", "One, two, three,", "Once upon a time"]
    together = either.complete(prompts, ignore_eos=True)
    assert [choice["index"] for choice in together["choices"]] == [0, 1, 2]
    alone = [either.complete(prompt, ignore_eos=True) for prompt in prompts]
    assert together["usage"]["prompt_tokens"] == sum(answer["usage"]["prompt_tokens"] for answer in alone)
    assert together["usage"]["completion_tokens"] == sum(answer["usage"]["completion_tokens"] for answer in alone)


@pytest.mark.feature("several prompts")
def test_a_list_of_token_lists_is_answered_in_its_order(either):
    together = either.complete([TOKENS, TOKENS[:3]], ignore_eos=True, max_tokens=5)
    assert [choice["index"] for choice in together["choices"]] == [0, 1]
    assert together["usage"]["prompt_tokens"] == len(TOKENS) + 3
    assert together["usage"]["completion_tokens"] == 10


@pytest.mark.feature("several prompts")
def test_several_prompts_with_several_choices_are_numbered_prompt_by_prompt(either):
    together = either.complete(["a b", "c d"], n=2, echo=True, max_tokens=2)
    assert [choice["index"] for choice in together["choices"]] == [0, 1, 2, 3]
    assert [choice["text"][:3] for choice in together["choices"]] == ["a b", "a b", "c d", "c d"]


@pytest.mark.feature("echo")
def test_echo_puts_the_prompt_before_the_answer(either):
    whole, answer = either.complete(echo=True), either.complete()
    assert whole["choices"][0]["text"] == "The sea is" + answer["choices"][0]["text"]
    assert whole["usage"] == answer["usage"] | {"prompt_tokens_details": whole["usage"]["prompt_tokens_details"]}


@pytest.mark.feature("echo")
def test_echo_of_token_ids_is_their_text(either):
    whole, answer = either.complete(TOKENS, echo=True), either.complete(TOKENS)
    assert whole["choices"][0]["text"].endswith(answer["choices"][0]["text"])
    assert len(whole["choices"][0]["text"]) > len(answer["choices"][0]["text"])


@pytest.mark.feature("echo")
def test_echo_false_is_no_echo(either):
    assert either.complete(echo=False)["choices"] == either.complete()["choices"]


@pytest.mark.feature("echo")
def test_a_stop_string_in_an_echoed_prompt_stops_nothing(either):
    answer = either.complete("one two three", echo=True, stop=["two th"], max_tokens=1)
    assert answer["choices"][0]["text"].startswith("one two three")


def test_a_completion_without_a_bound_that_ends_says_stop_or_length(either):
    answer = either.ask(COMPLETIONS, {"prompt": "Hi", "max_tokens": 40})
    assert answer["choices"][0]["finish_reason"] == ("length" if answer["usage"]["completion_tokens"] == 40 else "stop")
