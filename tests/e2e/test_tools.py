"""A real model calls functions: by the OpenAI SDK, plain and streamed, forced and free, over several turns."""

import json

import openai
import pytest

from tests.e2e.conftest import MODEL

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city now.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
        },
    },
}
TIME = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]},
        "strict": True,
    },
}
QUESTION = {"role": "user", "content": "What is the weather in Paris?"}
ASKED = {"model": MODEL, "messages": [QUESTION], "tools": [WEATHER, TIME], "temperature": 0, "max_tokens": 150}
CHOICES = [
    {"tool_choice": "required", "parallel_tool_calls": False},
    {"tool_choice": "required"},
    {"tool_choice": {"type": "function", "function": {"name": "get_time"}}},
]


def streamed(client: openai.OpenAI, **fields: object) -> tuple[str, list[dict], str]:
    """Content, calls and the finish reason, put together as clients do; each chunk's form is checked."""
    content, calls, reasons = "", [], []
    for chunk in client.chat.completions.create(**ASKED, **fields, stream=True):
        [choice] = chunk.choices
        content += choice.delta.content or ""
        reasons.append(choice.finish_reason)
        for piece in choice.delta.tool_calls or []:
            if piece.id:
                assert (piece.index, piece.type, piece.function.arguments) == (len(calls), "function", "")
                calls.append({"name": piece.function.name, "arguments": ""})
            else:
                assert (piece.index, piece.type, piece.function.name) == (len(calls) - 1, None, None)
                calls[-1]["arguments"] += piece.function.arguments
    assert reasons[:-1] == [None] * (len(reasons) - 1)
    return content, calls, reasons[-1]


def assert_valid(call: dict) -> None:
    arguments = json.loads(call["arguments"])
    schema = {"get_weather": WEATHER, "get_time": TIME}[call["name"]]["function"]["parameters"]
    assert set(arguments) == set(schema["required"])
    assert len(arguments["city"]) <= 20
    assert arguments.get("unit", "celsius") in ("celsius", "fahrenheit")


@pytest.mark.parametrize("choice", CHOICES, ids=["one", "many", "named"])
def test_a_call_that_has_to_be_is_one_that_is_valid_streamed_as_plain(server, choice):
    plain = server.client().chat.completions.create(**ASKED, **choice)
    calls = [call.function.model_dump() for call in plain.choices[0].message.tool_calls]
    content, pieces, reason = streamed(server.client(), **choice)
    assert pieces == calls
    assert reason == plain.choices[0].finish_reason
    assert (plain.choices[0].message.content, content) == (None, "")
    whole = calls if reason == "tool_calls" else calls[:-1]  # the last one of many may be cut off
    assert whole
    for call in whole:
        assert_valid(call)
    if choice.get("parallel_tool_calls") is False or choice["tool_choice"] != "required":
        assert (len(calls), reason) == (1, "tool_calls")
    if choice["tool_choice"] != "required":
        assert calls[0]["name"] == "get_time"


def test_the_sdks_own_stream_puts_a_call_together(server):
    with server.client().chat.completions.stream(**ASKED, **CHOICES[0]) as stream:
        for _ in stream:
            pass
        [choice] = stream.get_final_completion().choices
    [call] = choice.message.tool_calls
    assert_valid({"name": call.function.name, "arguments": call.function.arguments})
    assert choice.finish_reason == "tool_calls"


def test_without_a_call_the_answer_is_text(server):
    plain = server.client().chat.completions.create(**ASKED, tool_choice="none")
    assert plain.choices[0].message.tool_calls is None
    assert plain.choices[0].message.content
    without = server.client().chat.completions.create(**{**ASKED, "tools": openai.NOT_GIVEN})
    assert plain.choices[0].message.content == without.choices[0].message.content


def test_a_conversation_goes_on_with_results(server):
    client = server.client()
    messages: list = [QUESTION]
    for result in ("sunny, 21 degrees", "raining"):
        message = client.chat.completions.create(**{**ASKED, "messages": messages}, **CHOICES[0]).choices[0].message
        [call] = message.tool_calls
        messages += [message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": result}]
    before = client.chat.completions.create(**{**ASKED, "messages": messages, "max_tokens": 40})
    assert before.choices[0].message.content or before.choices[0].message.tool_calls
    fewer = client.chat.completions.create(**{**ASKED, "messages": messages[:1], "max_tokens": 1})
    assert before.usage.prompt_tokens > fewer.usage.prompt_tokens + 40  # calls and results are in the prompt


def test_every_choice_of_several_has_calls_of_its_own(server):
    answer = server.client().chat.completions.create(**{**ASKED, "temperature": 1, "seed": 5}, **CHOICES[0], n=3)
    ids = [call.id for choice in answer.choices for call in choice.message.tool_calls]
    assert len(set(ids)) == 3


def test_a_prefilled_answer_is_gone_on_with(server):
    messages = [QUESTION, {"role": "assistant", "content": "The weather in Paris is sunny and"}]
    fields = {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 8}
    on = server.client().chat.completions.create(**fields, extra_body={"continue_final_message": True})
    assert on.choices[0].message.content.startswith(" ")
    anew = server.client().chat.completions.create(**fields)
    assert anew.usage.prompt_tokens > on.usage.prompt_tokens


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"chat_template_kwargs": {"tone": "dry"}}, "invalid_value", "chat_template_kwargs.tone"),
        ({"tools": [{"type": "custom"}]}, "missing_required_parameter", "tools[0].custom"),
        ({"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"not": {}}}}]}, "invalid_schema",
         "tools[0].function.parameters"),
        ({"tools": [TIME], "tool_choice": "required", "ignore_eos": True}, "invalid_value", "ignore_eos"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x"}}]}]},
         "unsupported_content", "messages[0].content[0]"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_its_place(server, fields, code, param):
    with pytest.raises(openai.BadRequestError) as caught:
        server.client().chat.completions.create(model=MODEL, messages=[QUESTION], extra_body=fields)
    assert (caught.value.code, caught.value.param) == (code, param)
