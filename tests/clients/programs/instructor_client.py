"""instructor: Pydantic models out of a chat, by a schema and by a function, whole and while they stream."""

from typing import Any, Literal

import instructor
from openai import OpenAI
from pydantic import BaseModel, ConfigDict
from report import QUESTION, arguments, report

url, model = arguments()
plain = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)
COMMON: dict[str, Any] = {"model": model, "messages": QUESTION, "temperature": 0, "max_tokens": 300}


class Weather(BaseModel):
    model_config = ConfigDict(extra="forbid")  # a schema that allows more properties would get them
    city: Literal["Paris", "Rome"]
    metric: bool


def by(mode: instructor.Mode) -> Any:
    return instructor.from_openai(plain, mode=mode)


def chat() -> Any:
    answer = by(instructor.Mode.TOOLS).chat.completions.create(**{**COMMON, "max_tokens": 24}, response_model=None)
    return answer.choices[0].message.content


def tools() -> Any:
    return ["get_weather", by(instructor.Mode.TOOLS).chat.completions.create(**COMMON, response_model=Weather, max_retries=0).model_dump()]


def structured() -> Any:
    return by(instructor.Mode.JSON_SCHEMA).chat.completions.create(**COMMON, response_model=Weather, max_retries=0).model_dump()


def streamed_structured() -> Any:
    *_, last = by(instructor.Mode.JSON_SCHEMA).chat.completions.create_partial(**COMMON, response_model=Weather)
    return last.model_dump()


report(chat, tools, structured, streamed_structured)
