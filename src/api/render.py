"""Events to OpenAI's chunks, chunks to one object or to server-sent events. Knows no socket and no request.

There is one path: a reply that is not streamed is the fold of the very chunks that streaming would have sent.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from src.protocol import Delta, Finished, Started

Chunk = dict[str, Any]
PING = b": ping\n\n"  # a comment: clients skip it, dead connections show
DONE = b"data: [DONE]\n\n"


class Renderer(ABC):
    """Makes the chunks of one reply. Shapes: OpenAI's openapi.yaml, CreateChatCompletionStreamResponse and its like."""

    chunk_object: str
    whole_object: str

    def __init__(self, *, id: str, created: int, model: str, include_usage: bool) -> None:
        self._head = {"id": id, "object": self.chunk_object, "created": created, "model": model}
        self._include_usage = include_usage

    def chunks(self, events: Iterable[Started | Delta | Finished | None]) -> Iterator[Chunk | None]:
        """The chunks of a reply as its events come; None where time passes without one."""
        for event in events:
            if event is None:
                yield None
            elif isinstance(event, Started):
                if first := self._first():
                    yield self._chunk([first])
            elif isinstance(event, Delta):
                yield self._chunk([self._text(event.text)])
            else:
                yield self._chunk([self._last(event.reason)])
                if self._include_usage:
                    yield self._chunk([]) | {"usage": usage(event)}
                return

    def fold(self, chunks: Iterable[Chunk | None]) -> dict[str, Any]:
        """One object of all chunks. The renderer has to include the usage."""
        text, finish_reason, last = "", None, {}
        for chunk in chunks:
            if chunk is None:
                continue
            for choice in chunk["choices"]:
                text += self._text_of(choice)
                finish_reason = choice["finish_reason"] or finish_reason
            last = chunk
        choice = {"index": 0, **self._whole(text), "logprobs": None, "finish_reason": finish_reason}
        return self._head | {"object": self.whole_object, "choices": [choice], "usage": last["usage"]}

    def _chunk(self, choices: list[Chunk]) -> Chunk:
        return self._head | {"choices": choices} | ({"usage": None} if self._include_usage else {})

    @abstractmethod
    def _first(self) -> Chunk | None: ...

    @abstractmethod
    def _text(self, text: str) -> Chunk: ...

    @abstractmethod
    def _last(self, reason: str) -> Chunk: ...

    @abstractmethod
    def _text_of(self, choice: Chunk) -> str: ...

    @abstractmethod
    def _whole(self, text: str) -> Chunk: ...


class ChatRenderer(Renderer):
    chunk_object = "chat.completion.chunk"
    whole_object = "chat.completion"

    def _first(self) -> Chunk:
        return self._choice({"role": "assistant", "content": ""})

    def _text(self, text: str) -> Chunk:
        return self._choice({"content": text})

    def _last(self, reason: str) -> Chunk:
        return self._choice({}, reason)

    def _choice(self, delta: Chunk, finish_reason: str | None = None) -> Chunk:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}

    def _text_of(self, choice: Chunk) -> str:
        text: str = choice["delta"].get("content", "")
        return text

    def _whole(self, text: str) -> Chunk:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}


class CompletionRenderer(Renderer):
    chunk_object = "text_completion"
    whole_object = "text_completion"

    def _first(self) -> None:
        return None

    def _text(self, text: str) -> Chunk:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": None}

    def _last(self, reason: str) -> Chunk:
        return {"index": 0, "text": "", "logprobs": None, "finish_reason": reason}

    def _text_of(self, choice: Chunk) -> str:
        text: str = choice["text"]
        return text

    def _whole(self, text: str) -> Chunk:
        return {"text": text}


def usage(finished: Finished) -> dict[str, Any]:
    return {
        "prompt_tokens": finished.prompt_tokens,
        "completion_tokens": finished.completion_tokens,
        "total_tokens": finished.prompt_tokens + finished.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": finished.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def server_sent_events(chunks: Iterable[Chunk | None]) -> Iterator[bytes]:
    for chunk in chunks:
        yield PING if chunk is None else b"data: " + msgspec.json.encode(chunk) + b"\n\n"
    yield DONE
