"""langchain-openai: ChatOpenAI with bound tools and structured output by both of its methods."""

from typing import Any, Literal

from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from report import TOOL, arguments, report

url, model = arguments()
llm = ChatOpenAI(base_url=f"{url}/v1", api_key="none", model=model, temperature=0, max_retries=0, timeout=120, max_tokens=24)
roomy = llm.model_copy(update={"max_tokens": 300})
QUESTION = "What is the weather in Paris?"


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Paris", "Rome"]
    metric: bool


def chat() -> Any:
    return llm.invoke(QUESTION).content


def stream() -> str:
    return "".join(chunk.content for chunk in llm.stream(QUESTION))


def tools() -> Any:
    call = roomy.bind_tools([TOOL], tool_choice="required", parallel_tool_calls=False).invoke(QUESTION).tool_calls[0]
    return [call["name"], call["args"]]


def streamed_tools() -> Any:
    whole: Any = None
    for chunk in roomy.bind_tools([TOOL], tool_choice="required", parallel_tool_calls=False).stream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    return [whole.tool_calls[0]["name"], whole.tool_calls[0]["args"]]


def structured() -> Any:
    return roomy.with_structured_output(Weather, method="json_schema").invoke(QUESTION).model_dump()


def structured_by_a_function() -> Any:
    return roomy.with_structured_output(Weather, method="function_calling").invoke(QUESTION).model_dump()


report(chat, stream, tools, streamed_tools, structured, structured_by_a_function)
