"""anthropic: the Messages API, with the SDK's own putting together of streams."""

from typing import Any

import anthropic
from report import SCHEMA, arguments, report

url, model = arguments()
client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=120)
COMMON: dict[str, Any] = {
    "model": model,
    "max_tokens": 24,
    "extra_body": {"temperature": 0},  # the SDK's methods have no such argument any more, but the API takes it
    "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
}
TOOL: dict[str, Any] = {"name": "get_weather", "description": "The weather of a city.", "input_schema": SCHEMA}
CALL: dict[str, Any] = {
    **COMMON,
    "max_tokens": 300,
    "tools": [TOOL],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
}


def chat() -> str:
    return client.messages.create(**COMMON).content[0].text


def stream() -> str:
    with client.messages.stream(**COMMON) as events:
        return "".join(events.text_stream)


def tools() -> Any:
    (block,) = [block for block in client.messages.create(**CALL).content if block.type == "tool_use"]
    return [block.name, block.input]


def streamed_tools() -> Any:
    with client.messages.stream(**CALL) as events:
        (block,) = [block for block in events.get_final_message().content if block.type == "tool_use"]
    return [block.name, block.input]


report(chat, stream, tools, streamed_tools)
