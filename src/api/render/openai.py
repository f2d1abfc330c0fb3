"""Events to OpenAI's chunks, chunks to one object or to server-sent events. Knows no socket and no request.

There is one path: a reply that is not streamed is the fold of the very chunks that streaming would have sent.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import msgspec

from src.api.shapes import openai_event
from src.errors import ServiceError
from src.protocol import Delta, Ended, Finished, Started, TokenLogprob

Chunk = dict[str, Any]
Event = Started | Delta | Ended | Finished
PING = b": ping\n\n"  # a comment: clients skip it, dead connections show
REASONING = ("reasoning_content", "reasoning")  # two names that clients look for
DONE = b"data: [DONE]\n\n"


class Wants(msgspec.Struct, frozen=True, kw_only=True):
    """What a reply is to have beside the answer."""

    choices: int = 1
    logprobs: bool = False
    usage: bool = False  # in one more chunk at the end
    running_usage: bool = False  # in every chunk
    timings: bool = False


class Rendering(Protocol):
    """Makes a reply of what a runner tells, in one API's shapes: chunks as they come, and one object of all of them."""

    def chunks(self, events: Iterable[Event | None]) -> Iterator[Chunk | None]: ...

    def fold(self, chunks: Iterable[Chunk | None]) -> Chunk: ...

    def frames(self, chunks: Iterable[Chunk | None], after: int | None = None) -> Iterator[bytes]: ...

    def failed(self, error: ServiceError) -> bytes: ...


class Renderer(ABC):
    """Makes the chunks of one reply. Shapes: OpenAI's openapi.yaml, CreateChatCompletionStreamResponse and its like."""

    chunk_object: str
    whole_object: str

    def __init__(self, *, id: str, created: int, model: str, fingerprint: str, wants: Wants) -> None:
        self._head = {"id": id, "object": self.chunk_object, "created": created, "model": model, "system_fingerprint": fingerprint}
        self._wants = wants
        self._so_far = Finished(prompt_tokens=0, completion_tokens=0, cached_tokens=0)

    def chunks(self, events: Iterable[Event | None]) -> Iterator[Chunk | None]:
        """The chunks of a reply as its events come; None where time passes without one."""
        for event in events:
            if event is None:
                yield None
                continue
            self._count(event)
            if isinstance(event, Started):
                for index in range(self._wants.choices):
                    if first := self._first(index):
                        yield self._chunk([first])
            elif isinstance(event, Delta):
                for delta in _one_call_each(event):
                    yield self._chunk([self._said(delta)])
            elif isinstance(event, Ended):
                yield self._chunk([self._last(event)])
            else:
                yield from self._end(event)
                return

    def fold(self, chunks: Iterable[Chunk | None]) -> dict[str, Any]:
        """One object of all chunks. The renderer has to include the usage."""
        choices: dict[int, Chunk] = {}
        tail: Chunk = {}
        for chunk in chunks:
            if chunk is None:
                continue
            for part in chunk["choices"]:
                index = part["index"]
                whole = choices.setdefault(index, {"index": index, **self._empty(), "logprobs": None, "finish_reason": None})
                self._add(whole, part)
                whole["logprobs"] = _joined(whole["logprobs"], part["logprobs"])
                whole["finish_reason"] = part["finish_reason"] or whole["finish_reason"]
            tail = {key: value for key, value in chunk.items() if key in ("usage", "timings")}
        ordered = [self._closed(choices[index]) for index in sorted(choices)]
        return self._head | {"object": self.whole_object, "choices": ordered} | tail

    def _count(self, event: Event) -> None:
        so_far = self._so_far
        if isinstance(event, Started):
            self._so_far = msgspec.structs.replace(so_far, prompt_tokens=event.prompt_tokens, cached_tokens=event.cached_tokens)
        elif isinstance(event, Delta) and event.tokens:
            self._so_far = msgspec.structs.replace(so_far, completion_tokens=so_far.completion_tokens + len(event.tokens))

    def _end(self, finished: Finished) -> Iterator[Chunk]:
        extra = {"timings": timings(finished)} if self._wants.timings else {}
        if self._wants.usage:
            yield self._chunk([]) | {"usage": usage(finished)} | extra
        elif extra:
            yield self._chunk([]) | extra

    def _chunk(self, choices: list[Chunk]) -> Chunk:
        if not self._wants.usage:
            return self._head | {"choices": choices}
        return self._head | {"choices": choices, "usage": usage(self._so_far) if self._wants.running_usage else None}

    def _choice(self, index: int, said: Chunk, logprobs: Chunk | None = None, finish_reason: str | None = None) -> Chunk:
        return {"index": index, **said, "logprobs": logprobs, "finish_reason": finish_reason}

    def frames(self, chunks: Iterable[Chunk | None], after: int | None = None) -> Iterator[bytes]:
        """The chunks as server-sent events. `after`: see framed()."""
        return server_sent_events(chunks, after)

    def failed(self, error: ServiceError) -> bytes:
        """The last event of a stream that failed."""
        return openai_event(error)

    @abstractmethod
    def _first(self, index: int) -> Chunk | None: ...

    @abstractmethod
    def _said(self, delta: Delta) -> Chunk: ...

    @abstractmethod
    def _last(self, ended: Ended) -> Chunk: ...

    @abstractmethod
    def _empty(self) -> Chunk:
        """What a whole choice is before anything was added to it."""

    @abstractmethod
    def _add(self, whole: Chunk, part: Chunk) -> None:
        """Add a chunk's choice to the whole one."""

    def _closed(self, whole: Chunk) -> Chunk:
        """The choice after all its parts were added."""
        return whole


class ChatRenderer(Renderer):
    chunk_object = "chat.completion.chunk"
    whole_object = "chat.completion"

    def _first(self, index: int) -> Chunk:
        return self._choice(index, {"delta": {"role": "assistant", "content": ""}})

    def _said(self, delta: Delta) -> Chunk:
        said: Chunk = {}
        if delta.reasoning:
            said |= dict.fromkeys(REASONING, delta.reasoning)
        if delta.text:
            said["content"] = delta.text
        if delta.tool_calls:
            said["tool_calls"] = [_call_piece(call) for call in delta.tool_calls]
        logprobs = {"content": [logprob_entry(entry) for entry in delta.logprobs], "refusal": None} if self._wants.logprobs else None
        return self._choice(delta.index, {"delta": said}, logprobs)

    def _last(self, ended: Ended) -> Chunk:
        return self._choice(ended.index, {"delta": {}}, finish_reason=ended.reason)

    def _empty(self) -> Chunk:
        return {"message": {"role": "assistant", "content": "", "refusal": None}}

    def _add(self, whole: Chunk, part: Chunk) -> None:
        message, delta = whole["message"], part["delta"]
        message["content"] += delta.get("content", "")
        for name in REASONING:
            if name in delta:
                message[name] = message.get(name, "") + delta[name]
        for piece in delta.get("tool_calls", []):
            calls = message.setdefault("tool_calls", [])
            if "id" in piece:
                calls.append({"id": piece["id"], "type": "function", "function": dict(piece["function"])})
            else:
                calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]

    def _closed(self, whole: Chunk) -> Chunk:
        message = whole["message"]
        if "tool_calls" in message and not message["content"]:
            message["content"] = None
        return whole


class CompletionRenderer(Renderer):
    chunk_object = "text_completion"
    whole_object = "text_completion"

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self._offsets: dict[int, int] = {}  # characters of each choice's text so far

    def _first(self, index: int) -> None:
        return None

    def _said(self, delta: Delta) -> Chunk:
        return self._choice(delta.index, {"text": delta.text}, self._lists(delta) if self._wants.logprobs else None)

    def _lists(self, delta: Delta) -> Chunk:
        """The older form of logprobs: lists side by side."""
        offsets = []
        for entry in delta.logprobs:
            offset = self._offsets.get(delta.index, 0)
            offsets.append(offset)
            self._offsets[delta.index] = offset + len(entry.token)
        return {
            "tokens": [entry.token for entry in delta.logprobs],
            "token_logprobs": [entry.logprob for entry in delta.logprobs],
            "top_logprobs": [{top.token: top.logprob for top in entry.top} for entry in delta.logprobs],
            "text_offset": offsets,
        }

    def _last(self, ended: Ended) -> Chunk:
        return self._choice(ended.index, {"text": ""}, finish_reason=ended.reason)

    def _empty(self) -> Chunk:
        return {"text": ""}

    def _add(self, whole: Chunk, part: Chunk) -> None:
        whole["text"] += part["text"]


def _one_call_each(delta: Delta) -> Iterator[Delta]:
    """Clients put a chunk's pieces of calls together by their index: there may be no two of one call in it."""
    yield msgspec.structs.replace(delta, tool_calls=delta.tool_calls[:1])
    for piece in delta.tool_calls[1:]:
        yield Delta(index=delta.index, tool_calls=[piece])


def _call_piece(call: Any) -> Chunk:
    if call.id is None:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    return {"index": call.index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def logprob_entry(entry: TokenLogprob) -> Chunk:
    top = [{"token": one.token, "logprob": one.logprob, "bytes": one.bytes} for one in entry.top]
    return {"token": entry.token, "logprob": entry.logprob, "bytes": entry.bytes, "top_logprobs": top}


def _joined(known: Chunk | None, more: Chunk | None) -> Chunk | None:
    """Logprobs of two parts of a text."""
    if known is None or more is None:
        return known or more
    return {key: value + more[key] if isinstance(value, list) else value for key, value in known.items()}


def usage(finished: Finished) -> dict[str, Any]:
    return {
        "prompt_tokens": finished.prompt_tokens,
        "completion_tokens": finished.completion_tokens,
        "total_tokens": finished.prompt_tokens + finished.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": finished.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": finished.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def timings(finished: Finished) -> dict[str, Any]:
    """llama-server's names: of the prompt, and of the tokens after the first."""
    computed, decoded = finished.prompt_tokens - finished.cached_tokens, max(0, finished.completion_tokens - 1)
    return {
        "cache_n": finished.cached_tokens,
        "prompt_n": computed,
        "prompt_ms": round(1000 * finished.prefill_seconds, 1),
        "prompt_per_second": round(computed / finished.prefill_seconds, 1) if finished.prefill_seconds else None,
        "predicted_n": finished.completion_tokens,
        "predicted_ms": round(1000 * finished.decode_seconds, 1),
        "predicted_per_second": round(decoded / finished.decode_seconds, 1) if finished.decode_seconds else None,
    }


def framed(
    chunks: Iterable[Chunk | None], frame: Callable[[Chunk], bytes], after: int | None = None, ping: bytes = PING
) -> Iterator[bytes]:
    """`after`: the number of the last event that is not sent, for the client has it; None: events have no numbers."""
    number = 0
    for chunk in chunks:
        if chunk is None:
            yield ping
            continue
        number += 1
        if after is None:
            yield frame(chunk)
        elif number > after:
            yield b"id: %d\n" % number + frame(chunk)


def server_sent_events(chunks: Iterable[Chunk | None], after: int | None = None) -> Iterator[bytes]:
    yield from framed(chunks, data_frame, after)
    yield DONE


def data_frame(chunk: Chunk) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def named_frame(chunk: Chunk) -> bytes:
    """With the chunk's type as the event's name."""
    name: str = chunk["type"]
    return b"event: " + name.encode() + b"\n" + data_frame(chunk)
