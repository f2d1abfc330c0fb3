"""Tools in the prompt's own text, for models whose chat template does not show them. Knows no template."""

import json
from collections.abc import Callable
from typing import Any

from src.text.tools.call import Call, as_object

Message = dict[str, Any]
Write = Callable[[list[Call]], str]

INSTRUCTIONS = """You can call functions. These are there, each with the JSON schema of its arguments:
{functions}

To call functions, answer with nothing but the calls, in this form:
{example}
You then get their results. Answer in plain words where you need no function."""


def instructions(tools: list[dict[str, Any]], write: Write) -> str:
    functions = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    name = tools[0]["function"]["name"]
    return INSTRUCTIONS.format(functions=functions, example=write([Call(name, {"argument": "value"})]))


def with_instructions(messages: list[Message], text: str) -> list[Message]:
    """In the system prompt, which is made where there is none."""
    first, *rest = messages
    if first["role"] != "system":
        return [{"role": "system", "content": text}, *messages]
    return [{**first, "content": f"{first['content']}\n\n{text}"}, *rest]


def without_calls(messages: list[Message], write: Write) -> list[Message]:
    """Calls as the assistant's own text, and results as a message of the user: every template knows these two."""
    found: list[Message] = []
    results: list[str] = []

    def add_results() -> None:
        if results:
            found.append({"role": "user", "content": "\n".join(results)})
            results.clear()

    for message in messages:
        if message["role"] == "tool":
            results.append(f"Result of {message.get('name') or 'the call'}: {message['content']}")
            continue
        add_results()
        if message.get("tool_calls"):
            calls = write([Call(call["function"]["name"], as_object(call["function"]["arguments"])) for call in message["tool_calls"]])
            content = f"{message['content']}\n{calls}" if message.get("content") else calls
            message = {key: value for key, value in message.items() if key != "tool_calls"} | {"content": content}
        found.append(message)
    add_results()
    return found
