"""What a client program does, told as one line of JSON: each task's result, or its traceback. Knows no client."""

import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}, "metric": {"type": "boolean"}},
    "required": ["city", "metric"],
    "additionalProperties": False,
}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather of a city.", "parameters": SCHEMA, "strict": True},
}
QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]


def report(*tasks: Callable[[], Any]) -> None:
    told = {}
    for task in tasks:
        try:
            told[task.__name__] = {"result": task()}
        except Exception:
            told[task.__name__] = {"error": traceback.format_exc()}
    print(json.dumps(told))


def arguments() -> tuple[str, str]:
    """The server's URL without /v1, and the model."""
    return sys.argv[1], sys.argv[2]
