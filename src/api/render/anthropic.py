"""A runner's events to Anthropic's: blocks that begin, grow and stop.

Shapes: https://docs.claude.com/en/api/messages and .../streaming, and the types of the package anthropic.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from src.api.render.base import Chunk, Event, ResponseOptions, framed, named_frame
from src.api.render.errors import anthropic
from src.errors import ServiceError
from src.protocol import Delta, Ended, Finished, Started, ToolCallDelta

PING: Chunk = {"type": "ping"}
_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class MessageRenderer:
    """Makes the events of one reply. One block is open at a time."""

    def __init__(self, *, id: str, created: int, model: str, fingerprint: str, wants: ResponseOptions, max_tokens: int) -> None:
        self._id, self._model, self._max_tokens = id, model, max_tokens
        self._open: str | None = None  # the type of the block that is open
        self._index = -1  # of the newest block

    def chunks(self, events: Iterable[Event | None]) -> Iterator[Chunk | None]:
        ended: Ended | None = None
        for event in events:
            if event is None:
                yield None
            elif isinstance(event, Started):
                yield from self._start(event)
            elif isinstance(event, Delta):
                yield from self._delta(event)
            elif isinstance(event, Ended):
                ended = event
            else:
                yield from self._close()
                yield from self._end(event, ended)
                return

    def fold(self, chunks: Iterable[Chunk | None]) -> Chunk:
        """The message that these events make, as Anthropic's own client puts them together."""
        message: Chunk = {}
        arguments = ""
        for chunk in filter(None, chunks):
            kind, content = chunk["type"], message.get("content", [])
            if kind == "message_start":
                message = {**chunk["message"], "content": []}
            elif kind == "content_block_start":
                content.append(dict(chunk["content_block"]))
                arguments = ""
            elif kind == "content_block_delta":
                delta = {key: value for key, value in chunk["delta"].items() if key != "type"}
                arguments += delta.pop("partial_json", "")
                for key, value in delta.items():
                    content[-1][key] += value
            elif kind == "content_block_stop" and content[-1]["type"] == "tool_use":
                content[-1]["input"] = _object(arguments)
            elif kind == "message_delta":
                message |= chunk["delta"] | {"usage": message["usage"] | chunk["usage"]}
        return message

    def heartbeat(self) -> Chunk:
        return PING

    def frames(self, chunks: Iterable[Chunk | None], after: int | None = None) -> Iterator[bytes]:
        return framed(chunks, named_frame, self.heartbeat, after)

    def failed(self, error: ServiceError) -> bytes:
        return named_frame(anthropic(error))

    def _start(self, started: Started) -> Iterator[Chunk]:
        message: Chunk = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(started.prompt_tokens, started.cached_tokens, 0),
        }
        yield {"type": "message_start", "message": message}
        yield PING

    def _delta(self, delta: Delta) -> Iterator[Chunk]:
        if delta.reasoning:
            yield from self._open_as("thinking", {"thinking": "", "signature": ""})
            yield self._grow({"type": "thinking_delta", "thinking": delta.reasoning})
        if delta.text:
            yield from self._open_as("text", {"text": ""})
            yield self._grow({"type": "text_delta", "text": delta.text})
        for call in delta.tool_calls:
            yield from self._call(call)

    def _call(self, call: ToolCallDelta) -> Iterator[Chunk]:
        if call.id is not None:
            yield from self._close()
            yield from self._open_as("tool_use", {"id": call.id, "name": call.name, "input": {}})
        if call.arguments:
            yield self._grow({"type": "input_json_delta", "partial_json": call.arguments})

    def _open_as(self, kind: str, block: Chunk) -> Iterator[Chunk]:
        if self._open == kind:
            return
        yield from self._close()
        self._open, self._index = kind, self._index + 1
        yield {"type": "content_block_start", "index": self._index, "content_block": {"type": kind, **block}}

    def _grow(self, delta: Chunk) -> Chunk:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _close(self) -> Iterator[Chunk]:
        if self._open is not None:
            yield {"type": "content_block_stop", "index": self._index}
        self._open = None

    def _end(self, finished: Finished, ended: Ended | None) -> Iterator[Chunk]:
        assert ended is not None
        reason = "stop_sequence" if ended.stop is not None else _REASONS[ended.reason]
        if reason == "max_tokens" and finished.completion_tokens < self._max_tokens:
            reason = "model_context_window_exceeded"
        usage = _usage(finished.prompt_tokens, finished.cached_tokens, finished.completion_tokens)
        yield {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": ended.stop}, "usage": usage}
        yield {"type": "message_stop"}


def _usage(prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> Chunk:
    """Cached tokens do not count as input in this API."""
    return {
        "input_tokens": prompt_tokens - cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached_tokens,
        "output_tokens": completion_tokens,
    }


def _object(text: str) -> Any:
    """A call's arguments; {} where max_tokens cut them off."""
    try:
        return json.loads(text or "{}")
    except ValueError:
        return {}
