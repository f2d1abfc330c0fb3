"""Anthropic's and OpenAI's newer clients against the real model: tools there and back, reasoning refused, an answer that goes on."""

import json

import anthropic
import httpx
import pytest

from tests.support.server import Server

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
    "additionalProperties": False,
}
GREEDY = {"temperature": 0}  # its client has no argument for that any more
QUESTION = {"role": "user", "content": "What is the weather in Paris?"}


@pytest.fixture(scope="module")
def server():
    with Server(CONTEXT_LENGTH=1024, MAX_PARALLEL_SEQUENCES=2, INFERENCE_ENGINE="auto", RESPONSE_STORE_SIZE=10) as running:
        yield running


@pytest.fixture(scope="module")
def claude(server):
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("stream", [False, True])
def test_anthropics_client_calls_a_tool_and_gives_its_result(claude, stream):
    tools = [{"name": "get_weather", "description": "The weather of a city", "input_schema": SCHEMA}]
    asked = {"model": "smollm2-135m", "max_tokens": 100, "extra_body": GREEDY, "tools": tools}
    choice = {"type": "tool", "name": "get_weather"}
    if stream:
        with claude.messages.stream(**asked, tool_choice=choice, messages=[QUESTION]) as events:
            message = events.get_final_message()
    else:
        message = claude.messages.create(**asked, tool_choice=choice, messages=[QUESTION])
    assert message.stop_reason == "tool_use"
    [call] = [block for block in message.content if block.type == "tool_use"]
    assert call.name == "get_weather"
    assert set(call.input) == {"city"}
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Sunny, 22 degrees"}
    turns = [QUESTION, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    answer = claude.messages.create(**asked, tool_choice={"type": "none"}, messages=turns)
    assert answer.content[0].text
    assert answer.usage.input_tokens + answer.usage.cache_read_input_tokens > message.usage.output_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_openais_client_calls_a_function_and_gives_its_output(server, stream):
    tools = [{"type": "function", "name": "get_weather", "description": "The weather of a city", "parameters": SCHEMA, "strict": True}]
    asked = {"model": "smollm2-135m", "max_output_tokens": 100, "temperature": 0, "tools": tools}
    with server.client() as client:
        if stream:
            with client.responses.stream(**asked, tool_choice="required", input=[QUESTION]) as events:
                response = events.get_final_response()
        else:
            response = client.responses.create(**asked, tool_choice="required", input=[QUESTION])
        [call] = [item for item in response.output if item.type == "function_call"]
        assert call.name == "get_weather"
        assert set(json.loads(call.arguments)) == {"city"}
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny, 22 degrees"}
        by_input = client.responses.create(**asked, tool_choice="none", input=[QUESTION, *response.output, output])
        by_id = client.responses.create(**asked, tool_choice="none", input=[output], previous_response_id=response.id)
    assert by_input.output_text == by_id.output_text
    assert by_id.usage.input_tokens == by_input.usage.input_tokens


def test_a_structured_output_follows_its_schema(claude, server):
    output = {"format": {"type": "json_schema", "schema": SCHEMA}}
    message = claude.messages.create(model="smollm2-135m", max_tokens=100, messages=[QUESTION], output_config=output)
    assert set(json.loads(message.content[0].text)) == {"city"}
    with server.client() as client:
        text = {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}}
        response = client.responses.create(model="smollm2-135m", max_output_tokens=100, input=[QUESTION], text=text)
    assert set(json.loads(response.output_text)) == {"city"}


def test_an_answer_that_is_begun_is_gone_on_with(claude):
    turns = [{"role": "user", "content": "What is the capital of France?"}, {"role": "assistant", "content": "The capital of France is"}]
    message = claude.messages.create(model="smollm2-135m", max_tokens=5, messages=turns, extra_body=GREEDY)
    assert "Paris" in message.content[0].text


def test_thinking_has_no_effect_and_is_named_where_the_model_does_not_reason(claude):
    asked = {"model": "smollm2-135m", "max_tokens": 5, "messages": [QUESTION]}
    answer = claude.messages.with_raw_response.create(**asked, thinking={"type": "enabled", "budget_tokens": 1024})
    assert "thinking" in answer.headers["x-ignored-fields"]
    assert answer.parse().content
    answer = claude.messages.with_raw_response.create(**asked, thinking={"type": "disabled"})
    assert "x-ignored-fields" not in answer.headers


def test_texts_that_mean_the_same_have_nearer_vectors(server):
    texts = ["The cat sleeps on the sofa.", "A kitten is napping on the couch.", "The stock market fell sharply today."]
    with server.client() as client:
        first, second, other = (entry.embedding for entry in client.embeddings.create(model="smollm2-135m", input=texts).data)
    assert sum(x * y for x, y in zip(first, second, strict=True)) > sum(x * y for x, y in zip(first, other, strict=True))
    assert len(first) == 576


def test_a_template_is_shown_with_its_tools(server):
    body = {"messages": [QUESTION], "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]}
    answer = httpx.post(f"{server.url}/v1/chat/template", json=body, timeout=60).json()
    assert "get_weather" in answer["prompt"]
    assert answer["prompt"].endswith("<|im_start|>assistant\n")
    text = httpx.post(f"{server.url}/detokenize", json={"tokens": answer["tokens"]}, timeout=60).json()["prompt"]
    assert text == answer["prompt"]
