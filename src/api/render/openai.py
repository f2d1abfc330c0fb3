"""Events to OpenAI's chunks, for chats and completions, and the chunks to one object.

There is one path: a reply that is not streamed is the fold of the very chunks that streaming would have sent.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from src.api.render.base import DONE, Chunk, Event, ResponseOptions, data_frame, framed
from src.api.render.custom_calls import CustomCalls
from src.api.render.encoded import EncodedList
from src.api.render.errors import openai_event
from src.errors import ServiceError
from src.protocol import Delta, Ended, Finished, Started, TokenLogprob, ToolCallDelta

WRITTEN = {"function": "arguments", "custom": "input"}  # what the model writes of a call, by the call's type
REASONING = ("reasoning_content", "reasoning")  # two names that clients look for


class Renderer(ABC):
    """Makes the chunks of one reply. Shapes: OpenAI's openapi.yaml, CreateChatCompletionStreamResponse and its like."""

    chunk_object: str
    whole_object: str

    def __init__(self, *, id: str, created: int, model: str, fingerprint: str, wants: ResponseOptions) -> None:
        self._head = {"id": id, "object": self.chunk_object, "created": created, "model": model, "system_fingerprint": fingerprint}
        self._wants = wants
        self._so_far = Finished(prompt_tokens=0, completion_tokens=0, cached_tokens=0)
        self._ended: set[int] = set()

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
                    yield self._chunk([self._piece(delta)])
            elif isinstance(event, Ended):
                self._ended.add(event.index)
                yield self._chunk([self._last(event)])
            else:
                yield from self._end(event)
                return

    def fold(self, chunks: Iterable[Chunk | None]) -> dict[str, Any]:
        """One object of all chunks, with JSON in it. The renderer has to include the usage."""
        choices: dict[int, Chunk] = {}
        logprobs: dict[int, _Logprobs] = {}
        tail: Chunk = {}
        for chunk in chunks:
            if chunk is None:
                continue
            for part in chunk["choices"]:
                index = part["index"]
                whole = choices.setdefault(index, {"index": index, **self._empty(), "logprobs": None, "finish_reason": None})
                self._add(whole, part)
                if part["logprobs"] is not None:
                    logprobs.setdefault(index, _Logprobs()).add(part["logprobs"])
                whole["finish_reason"] = part["finish_reason"] or whole["finish_reason"]
            tail = {key: value for key, value in chunk.items() if key in ("usage", "timings")}
        for index, entries in logprobs.items():
            choices[index]["logprobs"] = entries.close()
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

    def _choice(self, index: int, fields: Chunk, logprobs: Chunk | None = None, finish_reason: str | None = None) -> Chunk:
        return {"index": index, **fields, "logprobs": logprobs, "finish_reason": finish_reason}

    def heartbeat(self) -> Chunk:
        running = next((index for index in range(self._wants.choices) if index not in self._ended), 0)
        return self._chunk([self._choice(running, self._nothing())])

    def frames(self, chunks: Iterable[Chunk | None], after: int | None = None) -> Iterator[bytes]:
        """The chunks as server-sent events. `after`: see framed()."""
        return framed(chunks, data_frame, self.heartbeat, after, last=DONE)

    def failed(self, error: ServiceError) -> bytes:
        """The last event of a stream that failed."""
        return openai_event(error)

    @abstractmethod
    def _nothing(self) -> Chunk:
        """What adds nothing to a choice."""

    @abstractmethod
    def _first(self, index: int) -> Chunk | None: ...

    @abstractmethod
    def _piece(self, delta: Delta) -> Chunk: ...

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

    def __init__(self, **head: Any) -> None:
        super().__init__(**head)
        self._custom = CustomCalls(self._wants.custom_tools)

    def chunks(self, events: Iterable[Event | None]) -> Iterator[Chunk | None]:
        return super().chunks(self._custom.events(events) if self._wants.custom_tools else events)

    def _nothing(self) -> Chunk:
        return {"delta": {}}

    def _first(self, index: int) -> Chunk:
        """Without content: an empty one would begin a text, also where calls are all that comes."""
        return self._choice(index, {"delta": {"role": "assistant"}})

    def _piece(self, delta: Delta) -> Chunk:
        fields: Chunk = {}
        if delta.reasoning:
            fields |= dict.fromkeys(REASONING, delta.reasoning)
        if delta.text:
            fields["content"] = delta.text
        if delta.tool_calls:
            fields["tool_calls"] = [_call_piece(call, self._custom.has(delta.index, call.index)) for call in delta.tool_calls]
        logprobs = {"content": [logprob_entry(entry) for entry in delta.logprobs], "refusal": None} if self._wants.logprobs else None
        return self._choice(delta.index, {"delta": fields}, logprobs)

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
            kind = "custom" if "custom" in piece else "function"
            if "id" in piece:
                calls.append({"id": piece["id"], "type": kind, kind: dict(piece[kind])})
            else:
                calls[piece["index"]][kind][WRITTEN[kind]] += piece[kind][WRITTEN[kind]]

    def _closed(self, whole: Chunk) -> Chunk:
        message = whole["message"]
        if "tool_calls" in message and not message["content"]:
            message["content"] = None
        return whole


class CompletionRenderer(Renderer):
    chunk_object = "text_completion"
    whole_object = "text_completion"

    def _nothing(self) -> Chunk:
        return {"text": ""}

    def _first(self, index: int) -> None:
        return None

    def _piece(self, delta: Delta) -> Chunk:
        return self._choice(delta.index, {"text": delta.text}, self._lists(delta) if self._wants.logprobs else None)

    def _lists(self, delta: Delta) -> Chunk:
        """The older form of logprobs: lists side by side."""
        return {
            "tokens": [_spelled(entry) for entry in delta.logprobs],
            "token_logprobs": [entry.logprob for entry in delta.logprobs],
            "top_logprobs": [_by_text(entry.top) for entry in delta.logprobs],
            "text_offset": [entry.offset for entry in delta.logprobs],
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


def _call_piece(call: ToolCallDelta, is_custom: bool) -> Chunk:
    kind = "custom" if is_custom else "function"
    written = {WRITTEN[kind]: call.arguments}
    if call.id is None:
        return {"index": call.index, kind: written}
    return {"index": call.index, "id": call.id, "type": kind, kind: {"name": call.name, **written}}


def logprob_entry(entry: TokenLogprob) -> Chunk:
    top = [{"token": likely.token, "logprob": likely.logprob, "bytes": likely.bytes} for likely in entry.top]
    return {"token": entry.token, "logprob": entry.logprob, "bytes": entry.bytes, "top_logprobs": top}


def _spelled(entry: TokenLogprob) -> str:
    """A token as the older form has it, which has no bytes beside it: `bytes:\\xe2\\x80` where it ends inside a character."""
    data = bytes(entry.bytes)
    return entry.token if entry.token.encode() == data else "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _by_text(likeliest: list[TokenLogprob]) -> dict[str, float]:
    """Of tokens with one text, the likeliest stands."""
    found: dict[str, float] = {}
    for entry in likeliest:
        found.setdefault(_spelled(entry), entry.logprob)
    return found


class _Logprobs:
    """Of a whole choice: the lists of its parts, one after another."""

    def __init__(self) -> None:
        self._lists: dict[str, EncodedList] = {}
        self._fields: Chunk = {}

    def add(self, part: Chunk) -> None:
        for key, value in part.items():
            if isinstance(value, list):
                self._lists.setdefault(key, EncodedList()).extend(value)
            self._fields[key] = value

    def close(self) -> Chunk:
        return self._fields | {key: entries.close() for key, entries in self._lists.items()}


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
