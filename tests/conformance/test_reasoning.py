"""Models that think: fields that steer it, and where the thoughts go. A model that does not think is told nothing of them."""

import pytest

from tests.conformance.api import CHAT

pytestmark = pytest.mark.feature("reasoning")

HELLO = [{"role": "user", "content": "hello"}]


def test_a_template_variable_is_taken(either):
    assert either.chat(chat_template_kwargs={"enable_thinking": False})["choices"]


def test_no_template_variable_is_no_variable(either):
    assert either.chat(chat_template_kwargs={})["choices"] == either.chat()["choices"]


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "self", "bos_token", "__class__"])
def test_names_that_belong_to_the_template_are_refused(api, name):
    body = {"messages": HELLO, "chat_template_kwargs": {name: 1}}
    api.refuse(CHAT, body, 400, "invalid_value", "chat_template_kwargs", told=name[:8])


def test_thoughts_in_the_history_are_taken_in_both_spellings(either):
    for name in ("reasoning_content", "reasoning"):
        messages = [*HELLO, {"role": "assistant", "content": "Hi.", name: "They greet me."}, *HELLO]
        assert either.ask(CHAT, {"messages": messages, "max_tokens": 4})["choices"]


def test_reasoning_tokens_are_counted_among_the_completions(either):
    usage = either.chat()["usage"]
    assert 0 <= usage["completion_tokens_details"]["reasoning_tokens"] <= usage["completion_tokens"]


@pytest.mark.parametrize("effort", ["low", "medium", "high"])
def test_an_effort_is_either_followed_or_named_as_ignored(api, effort):
    response = api.post(CHAT, {"messages": HELLO, "reasoning_effort": effort, "max_tokens": 4})
    assert response.status_code == 200, response.text
    assert response.headers.get("x-ignored-fields") in (None, "reasoning_effort")


def test_a_switch_is_either_followed_or_named_as_ignored(api):
    response = api.post(CHAT, {"messages": HELLO, "chat_template_kwargs": {"enable_thinking": True}, "max_tokens": 4})
    assert response.status_code == 200, response.text
    assert response.headers.get("x-ignored-fields") in (None, "chat_template_kwargs.enable_thinking")


def test_an_effort_that_nobody_knows_is_refused(api):
    response = api.post(CHAT, {"messages": HELLO, "reasoning_effort": "utmost"})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "reasoning_effort"


@pytest.mark.feature("continue_final_message")
def test_an_answer_goes_on_from_the_assistants_last_message(either):
    messages = [*HELLO, {"role": "assistant", "content": "One two three four"}]
    answer = either.ask(CHAT, {"messages": messages, "continue_final_message": True, "add_generation_prompt": False, "max_tokens": 4})
    begun = either.ask(CHAT, {"messages": messages, "max_tokens": 4})
    assert answer["usage"]["prompt_tokens"] < begun["usage"]["prompt_tokens"]
    assert answer["choices"][0]["message"]["role"] == "assistant"


@pytest.mark.feature("continue_final_message")
def test_without_a_generation_prompt_the_prompt_is_shorter(either):
    without = either.ask(CHAT, {"messages": HELLO, "add_generation_prompt": False, "max_tokens": 4})
    assert without["usage"]["prompt_tokens"] <= either.ask(CHAT, {"messages": HELLO, "max_tokens": 4})["usage"]["prompt_tokens"]


@pytest.mark.feature("continue_final_message")
@pytest.mark.parametrize(
    ("messages", "fields"),
    [
        ([*HELLO, {"role": "assistant", "content": "a"}], {"continue_final_message": True, "add_generation_prompt": True}),
        (HELLO, {"continue_final_message": True, "add_generation_prompt": False}),
    ],
    ids=["with a generation prompt", "after a user's message"],
)
def test_what_cannot_be_continued_is_refused(api, messages, fields):
    api.refuse(CHAT, {"messages": messages, **fields}, 400, "invalid_value", "continue_final_message")
