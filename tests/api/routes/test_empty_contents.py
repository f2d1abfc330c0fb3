"""A message may say nothing, in every shape that clients have for it, in every role and on every route."""

import pytest

from tests.support.openai_api import CHAT

ABSENT = object()
NOTHING = {
    "no parts": [],
    "no text": "",
    "null": None,
    "absent": ABSENT,
    "empty part": [{"type": "text", "text": ""}],
    "null part": [{"type": "text", "text": None}],
}
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
USER = {"role": "user", "content": "hi"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def saying(nothing: object, **message: object) -> dict:
    return message if nothing is ABSENT else {**message, "content": nothing}


@pytest.fixture(params=NOTHING.values(), ids=NOTHING)
def nothing(request) -> object:
    return request.param


@pytest.mark.parametrize("route", [CHAT, "/v1/tokenize", "/v1/chat/template"])
@pytest.mark.parametrize("role", ROLES)
def test_a_message_of_a_chat_may_be_empty_in_any_role(http, route, role, nothing):
    for messages in ([saying(nothing, role=role)], [USER, saying(nothing, role=role), USER]):
        answer = http.post(route, json={"messages": messages, **({"max_tokens": 2} if route == CHAT else {})})
        assert answer.status_code == 200, answer.text
        if route == "/v1/chat/template" and role != "tool":  # whose results this template has told in words
            assert answer.json()["prompt"].count(f"{'system' if role == 'developer' else role}: \n") == 1


def test_calls_and_results_may_go_with_empty_contents(http, nothing):
    messages = [USER, saying(nothing, role="assistant", tool_calls=[CALL]), saying(nothing, role="tool", tool_call_id="c"), USER]
    answer = http.post("/v1/chat/template", json={"messages": messages})
    assert answer.json()["prompt"].endswith("user: Result of f: \nuser: hi\n")


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_a_message_of_anthropics_api_may_be_empty(http, role, nothing):
    for messages in ([saying(nothing, role=role)], [USER, saying(nothing, role=role), USER]):
        if role != "assistant" or len(messages) > 1:
            answer = http.post("/v1/messages", json={"max_tokens": 2, "messages": messages})
            assert answer.status_code == 200, answer.text


def test_an_empty_last_message_of_the_assistant_is_the_answers_place(http, nothing):
    counts = [
        http.post("/v1/messages/count_tokens", json={"messages": messages}).json()["input_tokens"]
        for messages in ([USER], [USER, saying(nothing, role="assistant")])
    ]
    assert counts[0] == counts[1]


def test_results_of_anthropics_tools_and_the_system_prompt_may_be_empty(http, nothing):
    use = {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]}
    result = {"role": "user", "content": [saying(nothing, type="tool_result", tool_use_id="c")]}
    system = {} if nothing is ABSENT else {"system": nothing}
    answer = http.post("/v1/messages", json={"max_tokens": 2, "messages": [USER, use, result], **system})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("role", ["user", "assistant", "system", "developer"])
def test_an_item_of_a_responses_input_may_be_empty(http, role, nothing):
    parts = [{**part, "type": "input_text"} for part in nothing] if isinstance(nothing, list) else nothing
    answer = http.post(
        "/v1/responses", json={"input": [saying(parts, role=role), {"role": "user", "content": "hi"}], "max_output_tokens": 16}
    )
    assert answer.status_code == 200, answer.text
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
    output = {"type": "function_call_output", "call_id": "c", **({} if parts is ABSENT else {"output": parts})}
    answer = http.post("/v1/responses", json={"input": [{"role": "user", "content": "hi"}, call, output], "max_output_tokens": 16})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("prompt", ["", [""], ["", "a"]])
def test_an_empty_prompt_begins_a_document(http, prompt):
    answer = http.post("/v1/completions", json={"prompt": prompt, "max_tokens": 2})
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["prompt_tokens"] == (1 if isinstance(prompt, str) else len(prompt))


def test_a_part_without_its_text_is_still_a_mistake(http):
    answer = http.post(CHAT, json={"messages": [{"role": "user", "content": [{"type": "text"}]}]})
    assert answer.json()["error"]["param"] == "messages[0].content[0].text"
