"""litellm: this service as an OpenAI-compatible provider."""

from typing import Any, Literal

import litellm
from pydantic import BaseModel
from report import QUESTION, TOOL, arguments, report

url, model = arguments()
litellm.telemetry = False
COMMON: dict[str, Any] = {
    "model": f"openai/{model}",
    "api_base": f"{url}/v1",
    "api_key": "none",
    "messages": QUESTION,
    "temperature": 0,
    "max_tokens": 24,
    "num_retries": 0,
    "timeout": 120,
}
CALL: dict[str, Any] = {**COMMON, "max_tokens": 300, "tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}


class Weather(BaseModel):
    city: Literal["Paris", "Rome"]
    metric: bool


def chat() -> Any:
    return litellm.completion(**COMMON).choices[0].message.content


def stream() -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(**COMMON, stream=True))


def tools() -> Any:
    call = litellm.completion(**CALL).choices[0].message.tool_calls[0].function
    return [call.name, call.arguments]


def streamed_tools() -> Any:
    whole = litellm.stream_chunk_builder(list(litellm.completion(**CALL, stream=True)))
    call = whole.choices[0].message.tool_calls[0].function
    return [call.name, call.arguments]


def structured() -> Any:
    answer = litellm.completion(**{**COMMON, "max_tokens": 200}, response_format=Weather)
    return Weather.model_validate_json(answer.choices[0].message.content).model_dump()


report(chat, stream, tools, streamed_tools, structured)
