"""What both translated APIs are tested with: their streams' events, and an answer as a runner tells it."""

import json
from collections.abc import Iterable

import httpx
import httpx2

from src.protocol import Delta, Ended, Finished, Started, ToolCallDelta

SAID = "user: hello\n"  # by the echo engine, to "hello"

# Reasoning, text and two calls, with a silence in between.
TOLD = [
    Started(prompt_tokens=9, cached_tokens=4, queue_seconds=0),
    Delta(reasoning="I "),
    None,
    Delta(reasoning="see."),
    Delta(text="Let me "),
    Delta(text="look.", tool_calls=[ToolCallDelta(index=0, id="c1", name="weather")]),
    Delta(tool_calls=[ToolCallDelta(index=0, arguments='{"city": ')]),
    Delta(tool_calls=[ToolCallDelta(index=0, arguments='"Paris"}'), ToolCallDelta(index=1, id="c2", name="time", arguments="{}")]),
    Ended(reason="tool_calls"),
    Finished(prompt_tokens=9, completion_tokens=20, cached_tokens=4, reasoning_tokens=2),
]


def events(response: httpx.Response) -> list[dict]:
    """The data of each event, whose name is its type."""
    found = []
    for block in response.text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def replaying(frames: Iterable[bytes]) -> httpx2.Client:
    """For a provider's own client: whatever it asks, it gets this stream."""
    stream = b"".join(frames)
    answer = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)
    return httpx2.Client(transport=httpx2.MockTransport(lambda request: answer))
