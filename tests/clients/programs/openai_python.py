"""openai for Python: chats, text, embeddings, responses, and the helpers that put streams and schemas together."""

from typing import Any, Literal

from openai import OpenAI
from pydantic import BaseModel
from report import QUESTION, SCHEMA, TOOL, arguments, report

url, model = arguments()
client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)
COMMON: dict[str, Any] = {"model": model, "messages": QUESTION, "temperature": 0, "max_tokens": 24}
CALL: dict[str, Any] = {**COMMON, "max_tokens": 300, "tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}


class Weather(BaseModel):
    city: Literal["Paris", "Rome"]
    metric: bool


def chat() -> str | None:
    return client.chat.completions.create(**COMMON).choices[0].message.content


def stream() -> str:
    chunks = client.chat.completions.create(**COMMON, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def helper_stream() -> str | None:
    # The helper raises where an answer is cut.
    with client.chat.completions.stream(**COMMON, extra_body={"guided_choice": ["It is sunny."]}) as events:
        return events.get_final_completion().choices[0].message.content


def tools() -> Any:
    call = client.chat.completions.create(**CALL).choices[0].message.tool_calls[0].function
    return [call.name, call.arguments]


def streamed_tools() -> Any:
    with client.chat.completions.stream(**CALL) as events:
        call = events.get_final_completion().choices[0].message.tool_calls[0].function
    return [call.name, call.arguments]


def structured() -> Any:
    answer = client.chat.completions.parse(**{**COMMON, "max_tokens": 200}, response_format=Weather)
    return answer.choices[0].message.parsed.model_dump()


def completion() -> str:
    return client.completions.create(model=model, prompt="The sea is", max_tokens=8, temperature=0).choices[0].text


def embedding() -> int:
    return len(client.embeddings.create(model=model, input="The sea").data[0].embedding)


def responses() -> str:
    return client.responses.create(model=model, input="Hello.", max_output_tokens=16, temperature=0).output_text


def streamed_responses() -> str:
    # The helper raises where an answer is cut: this one is short.
    form: Any = {"format": {"type": "json_schema", "name": "weather", "schema": SCHEMA, "strict": True}}
    with client.responses.stream(model=model, input="Hello.", max_output_tokens=200, temperature=0, text=form) as events:
        for _ in events:
            pass
        return events.get_final_response().output_text


report(chat, stream, helper_stream, tools, streamed_tools, structured, completion, embedding, responses, streamed_responses)
