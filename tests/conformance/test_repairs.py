"""Conversations as clients send them: whatever a chat template takes, nothing that was said is missing in the prompt."""

import pytest

from tests.conformance.api import CHAT

pytestmark = pytest.mark.feature("conversations of any order")

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
LOOP = [
    {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "Nothing there."},
]


def said(role: str, text: str) -> dict:
    return {"role": role, "content": text}


CONVERSATIONS = {
    "two systems": [said("system", "First rule."), said("system", "Second rule."), said("user", "Hello.")],
    "system in the middle": [said("user", "Hello."), said("assistant", "Hi."), said("system", "Be brief."), said("user", "Why?")],
    "system at the end": [said("user", "Hello."), said("system", "Be brief.")],
    "two users": [said("user", "Hello."), said("user", "Anyone there?")],
    "text beside a call": [said("user", "Look."), *LOOP],
    "user after tool": [said("user", "Look."), *LOOP, said("user", "And now?")],
}


@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_all_that_was_said_reaches_the_model(api, conversation):
    messages = CONVERSATIONS[conversation]
    tools = {"tools": [TOOL]} if any(message["role"] == "tool" for message in messages) else {}
    prompt = api.ask("/v1/chat/template", {"messages": messages, **tools})["prompt"]
    assert [message["content"] for message in messages if message["content"] not in prompt] == []
    assert api.ask(CHAT, {"messages": messages, **tools, "max_tokens": 1})["choices"]
