"""Tools: who decides that one is called, what a call looks like, how it is streamed, and calls in the history.

The arguments of every function here have few values, so that any model comes to an end of a call that it has to make.
"""

import json

import pytest

from tests.conformance.api import CHAT

pytestmark = pytest.mark.feature("tools")


def tool(name: str, **properties: object) -> dict:
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": f"Does {name}.", "parameters": schema, "strict": True}}


WEATHER = tool("get_weather", city={"enum": ["Paris", "Rome"]}, metric={"type": "boolean"})
TIME = tool("get_time", zone={"enum": ["UTC", "CET"]})
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
ONE = {"max_tokens": 300, "parallel_tool_calls": False}  # of several, a model that says nonsense might never make the last


def named(name: str) -> dict:
    return {"type": "function", "function": {"name": name}}


def calls_of(answer: dict) -> list[dict]:
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    return choice["message"]["tool_calls"]


def check_call(call: dict) -> dict:
    """What its function is given."""
    assert set(call) - {"index"} == {"id", "type", "function"}
    assert isinstance(call["id"], str)
    assert call["id"]
    assert call["type"] == "function"
    arguments = json.loads(call["function"]["arguments"])
    if call["function"]["name"] == "get_weather":
        assert arguments["city"] in ("Paris", "Rome")
        assert isinstance(arguments["metric"], bool)
        assert set(arguments) == {"city", "metric"}
    else:
        assert call["function"]["name"] == "get_time"
        assert arguments["zone"] in ("UTC", "CET")
    return arguments


@pytest.mark.feature("tool_choice required")
def test_required_makes_the_model_call_a_function(either):
    for call in calls_of(either.ask(CHAT, {"messages": ASK, "tools": [WEATHER, TIME], "tool_choice": "required", **ONE})):
        check_call(call)


@pytest.mark.feature("tool_choice required")
@pytest.mark.parametrize("seed", range(3))
def test_required_holds_at_a_high_temperature_too(either, seed):
    body = {"messages": ASK, "tools": [WEATHER, TIME], "tool_choice": "required", "temperature": 1.5, "seed": seed, **ONE}
    for call in calls_of(either.ask(CHAT, body)):
        check_call(call)


@pytest.mark.feature("tool_choice named")
@pytest.mark.parametrize("name", ["get_weather", "get_time"])
def test_a_named_function_is_called_whatever_was_asked(either, name):
    body = {"messages": ASK, "tools": [WEATHER, TIME], "tool_choice": named(name), **ONE}
    for call in calls_of(either.ask(CHAT, body)):
        check_call(call)
        assert call["function"]["name"] == name


@pytest.mark.feature("tool_choice none")
def test_none_makes_an_answer_in_words(either):
    answer = either.ask(CHAT, {"messages": ASK, "tools": [WEATHER], "tool_choice": "none", "max_tokens": 16})
    assert not answer["choices"][0]["message"].get("tool_calls")
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")


@pytest.mark.feature("tool_choice auto")
@pytest.mark.parametrize("choice", [{}, {"tool_choice": "auto"}], ids=["left out", "auto"])
def test_auto_leaves_it_to_the_model(either, choice):
    (chosen,) = either.ask(CHAT, {"messages": ASK, "tools": [WEATHER], "max_tokens": 60, **choice})["choices"]
    if calls := chosen["message"].get("tool_calls"):
        assert all(call["function"]["name"] for call in calls)
        assert chosen["finish_reason"] in ("tool_calls", "length")
    else:
        assert chosen["finish_reason"] in ("stop", "length")


def test_the_model_is_shown_its_tools(either):
    with_tools = either.ask(CHAT, {"messages": ASK, "tools": [WEATHER], "max_tokens": 4})
    without = either.ask(CHAT, {"messages": ASK, "max_tokens": 4})
    assert with_tools["usage"]["prompt_tokens"] > without["usage"]["prompt_tokens"] + 10


def test_no_tools_is_no_tools(either):
    one, other = (either.ask(CHAT, {"messages": ASK, "max_tokens": 8, **fields}) for fields in ({}, {"tools": []}))
    assert one["choices"] == other["choices"]


def test_a_call_has_no_content_beside_it(either):
    answer = either.ask(CHAT, {"messages": ASK, "tools": [WEATHER], "tool_choice": "required", **ONE})
    assert not answer["choices"][0]["message"].get("content")


def test_ids_of_calls_differ(either):
    body = {"messages": ASK, "tools": [WEATHER], "tool_choice": "required", **ONE}
    ids = [call["id"] for _ in range(2) for call in calls_of(either.ask(CHAT, body))]
    assert len(set(ids)) == len(ids)


def test_a_function_without_parameters_can_be_called(either):
    bare = {"type": "function", "function": {"name": "ping"}}
    body = {"messages": ASK, "tools": [bare], "tool_choice": named("ping"), "max_tokens": 120}
    (choice,) = either.ask(CHAT, body)["choices"]
    (call, *_) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "ping"
    if choice["finish_reason"] == "tool_calls":
        assert isinstance(json.loads(call["function"]["arguments"]), dict)


@pytest.mark.feature("parallel_tool_calls")
def test_without_parallel_calls_there_is_one(either):
    body = {"messages": ASK, "tools": [WEATHER, TIME], "tool_choice": "required", **ONE}
    assert len(calls_of(either.ask(CHAT, body))) == 1


@pytest.mark.feature("parallel_tool_calls")
@pytest.mark.parametrize("fields", [{}, {"parallel_tool_calls": True}], ids=["left out", "true"])
def test_with_parallel_calls_all_but_one_that_is_cut_are_whole(either, fields):
    body = {"messages": ASK, "tools": [WEATHER, TIME], "tool_choice": "required", "max_tokens": 300, **fields}
    (choice,) = either.ask(CHAT, body)["choices"]
    *others, last = choice["message"]["tool_calls"]
    for call in others if choice["finish_reason"] == "length" else [*others, last]:
        check_call(call)


def test_several_choices_each_have_their_calls(either):
    body = {"messages": ASK, "tools": [WEATHER], "tool_choice": "required", "n": 2, "temperature": 1, "seed": 1, **ONE}
    for choice in either.ask(CHAT, body)["choices"]:
        assert choice["finish_reason"] == "tool_calls"
        for call in choice["message"]["tool_calls"]:
            check_call(call)


def test_a_call_that_is_cut_ends_with_length(either):
    answer = either.ask(CHAT, {"messages": ASK, "tools": [WEATHER], "tool_choice": "required", "max_tokens": 3})
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.feature("tools, streamed")
def test_a_calls_first_delta_names_it_and_the_others_have_its_arguments_alone(api):
    body = {"messages": ASK, "tools": [WEATHER], "tool_choice": "required", "temperature": 0, **ONE}
    stream = api.stream(CHAT, body)
    seen: dict[int, str] = {}
    for chunk in stream.chunks:
        for piece in chunk["choices"][0]["delta"].get("tool_calls") or []:
            if piece["index"] not in seen:
                assert piece["index"] == len(seen)
                assert set(piece) == {"index", "id", "type", "function"}
                assert piece["type"] == "function"
                assert piece["function"]["name"] == "get_weather"
                seen[piece["index"]] = piece["function"]["arguments"]
            else:
                assert set(piece) == {"index", "function"}
                assert set(piece["function"]) == {"arguments"}
                seen[piece["index"]] += piece["function"]["arguments"]
    assert seen
    for arguments in seen.values():
        assert json.loads(arguments)["city"] in ("Paris", "Rome")
    last = stream.chunks[-1]["choices"][0]
    assert (last["delta"], last["finish_reason"]) == ({}, "tool_calls")


@pytest.mark.feature("tools, streamed")
def test_no_mark_of_the_models_own_format_is_streamed_as_content(api):
    body = {"messages": ASK, "tools": [WEATHER], "tool_choice": "required", "temperature": 0, **ONE}
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in api.stream(CHAT, body).chunks)
    assert not text.strip()


@pytest.mark.feature("tools in the history")
def test_calls_and_their_results_are_taken_and_read(either):
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris", "metric": true}'}}
    messages = [*ASK, {"role": "assistant", "content": None, "tool_calls": [call]}]
    messages.append({"role": "tool", "tool_call_id": "call_1", "content": "Sunny, 20 degrees, and a light wind from the west."})
    answer = either.ask(CHAT, {"messages": messages, "tools": [WEATHER], "max_tokens": 8})
    alone = either.ask(CHAT, {"messages": ASK, "tools": [WEATHER], "max_tokens": 8})
    assert answer["usage"]["prompt_tokens"] > alone["usage"]["prompt_tokens"] + 15


@pytest.mark.feature("tools in the history")
def test_two_calls_of_one_message_each_have_their_result(either):
    calls = [{"id": f"c{n}", "type": "function", "function": {"name": "get_time", "arguments": '{"zone": "UTC"}'}} for n in (1, 2)]
    messages = [*ASK, {"role": "assistant", "content": "", "tool_calls": calls}]
    messages += [{"role": "tool", "tool_call_id": f"c{n}", "content": "12:00"} for n in (1, 2)]
    assert either.ask(CHAT, {"messages": messages, "tools": [TIME], "max_tokens": 4})["choices"]


@pytest.mark.feature("tools in the history")
def test_a_history_with_calls_needs_no_tools(either):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [*ASK, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "done"}]
    assert either.ask(CHAT, {"messages": messages, "max_tokens": 4})["choices"]


@pytest.mark.feature("refusals of tools")
@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"tools": "all"}, "invalid_value", "tools"),
        ({"tools": [5]}, "invalid_value", "tools[0]"),
        ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "missing_required_parameter", "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "invalid_value", "tools[0].function.name"),
        ({"tools": [WEATHER, WEATHER]}, "invalid_value", "tools"),
        ({"tools": [tool(f"f{n}") for n in range(513)]}, "invalid_value", "tools"),
        ({"tools": [WEATHER], "tool_choice": "sometimes"}, "invalid_value", "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": named("other")}, "invalid_value", "tool_choice"),
        ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
        ({"tool_choice": named("get_weather")}, "invalid_value", "tool_choice"),
        ({"tools": [WEATHER], "parallel_tool_calls": "no"}, "invalid_value", "parallel_tool_calls"),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)
def test_what_cannot_be_called_is_refused_by_name(api, fields, code, param):
    api.refuse(CHAT, {"messages": ASK, **fields}, 400, code, param)


@pytest.mark.feature("refusals of tools")
@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": "a", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f"}}]}, "messages[0]"),
        ({"role": "assistant", "tool_calls": [{"id": "c", "type": "function"}]}, "messages[0].tool_calls[0].function"),
    ],
    ids=["a user's calls", "a call of nothing"],
)
def test_a_history_that_cannot_be_is_refused_by_its_place(api, message, param):
    code = "missing_required_parameter" if param.endswith("function") else "invalid_value"
    api.refuse(CHAT, {"messages": [message]}, 400, code, param)
