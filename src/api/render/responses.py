"""A runner's events to those of OpenAI's Responses API: items that are added, grow and are done.

Shapes: the types of the package openai (openai/types/responses).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from src.api.render.base import Chunk, Event, ResponseOptions, framed, named_frame
from src.api.render.custom_calls import input_of
from src.api.render.encoded import EncodedList
from src.api.render.openai import logprob_entry
from src.errors import ServiceError
from src.protocol import Delta, Ended, Finished, Started, ToolCallDelta

_PREFIXES = {"message": "msg", "function_call": "fc", "custom_tool_call": "ctc", "reasoning": "rs"}


class ResponseRenderer:
    """Makes the events of one reply. One item is open at a time; the last event has the whole response."""

    def __init__(
        self,
        *,
        id: str,
        created: int,
        model: str,
        fingerprint: str,
        wants: ResponseOptions,
        echo: Chunk,
        called_as: Mapping[str, dict[str, str]] = MappingProxyType({}),
        keep: Callable[[Chunk], None] | None = None,
    ) -> None:
        """`echo`: what of the request the response repeats; `called_as`: type and names of a call's item, by the name that the model
        uses, where they are others than a function's; `keep` is given the whole response once it has ended."""
        self._keep = keep
        self._called_as = called_as
        self._logprobs = wants.logprobs
        self._head: Chunk = {"id": id, "object": "response", "created_at": created, "model": model, **echo}
        self._output: list[Chunk] = []
        self._open: Chunk | None = None
        self._entries = EncodedList()  # logprobs of the item that is open
        self._arguments = ""  # of the call that is open
        self._sequence = -1

    def chunks(self, events: Iterable[Event | None]) -> Iterator[Chunk | None]:
        ended: Ended | None = None
        for event in events:
            if event is None:
                yield None
            elif isinstance(event, Started):
                yield self._event("response.created", response=self._response("in_progress"))
                yield self._event("response.in_progress", response=self._response("in_progress"))
            elif isinstance(event, Delta):
                yield from self._delta(event)
            elif isinstance(event, Ended):
                ended = event
            else:
                assert ended is not None
                yield from self._end(event, cut=ended.reason == "length")
                return

    def fold(self, chunks: Iterable[Chunk | None]) -> Chunk:
        last: Chunk = {}
        for chunk in chunks:
            last = last if chunk is None else chunk
        response: Chunk = last["response"]
        return response

    def heartbeat(self) -> Chunk:
        """With the number of the event before it: it is none of the answer's own."""
        return {"type": "response.in_progress", "sequence_number": self._sequence, "response": self._response("in_progress")}

    def frames(self, chunks: Iterable[Chunk | None], after: int | None = None) -> Iterator[bytes]:
        return framed(chunks, named_frame, self.heartbeat, after)

    def failed(self, error: ServiceError) -> bytes:
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"
        if error.code == "context_length_exceeded":
            code = error.code
        response = self._response("failed") | {"error": {"code": code, "message": error.public_message}}
        return named_frame(self._event("response.failed", response=response))

    def _delta(self, delta: Delta) -> Iterator[Chunk]:
        if delta.reasoning:
            yield from self._open_text("reasoning", {"type": "reasoning_text", "text": ""}, {"summary": []})
            yield from self._grow("response.reasoning_text.delta", delta.reasoning)
        if delta.text:
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            yield from self._open_text("message", part, {"role": "assistant"})
            yield from self._grow("response.output_text.delta", delta.text, logprobs=self._logprobs_of(delta))
        for call in delta.tool_calls:
            yield from self._call(call)

    def _logprobs_of(self, delta: Delta) -> list[Chunk]:
        return [logprob_entry(entry) for entry in delta.logprobs] if self._logprobs else []

    def _call(self, call: ToolCallDelta) -> Iterator[Chunk]:
        if call.id is not None:
            yield from self._close("completed")
            assert call.name is not None
            told = self._called_as.get(call.name, {"type": "function_call", "name": call.name})
            self._arguments = ""
            empty = {"input": ""} if told["type"] == "custom_tool_call" else {"arguments": ""}
            yield from self._add(told["type"], {"call_id": call.id, **told, **empty})
        if call.arguments:
            item = self._item()
            self._arguments += call.arguments
            if item["type"] == "function_call":
                item["arguments"] = self._arguments
                yield self._event("response.function_call_arguments.delta", **self._place(), delta=call.arguments)

    def _open_text(self, kind: str, part: Chunk, fields: Chunk) -> Iterator[Chunk]:
        if self._open is not None and self._open["type"] == kind:
            return
        yield from self._close("completed")
        yield from self._add(kind, {**fields, "content": []})
        self._item()["content"].append(part)
        self._entries = EncodedList()
        yield self._event("response.content_part.added", **self._place(), content_index=0, part=dict(part))

    def _grow(self, name: str, text: str, logprobs: list[Chunk] | None = None) -> Iterator[Chunk]:
        part = self._item()["content"][0]
        part["text"] += text
        extra: Chunk = {}
        if logprobs is not None:
            self._entries.extend(logprobs)
            extra["logprobs"] = logprobs
        yield self._event(name, **self._place(), content_index=0, delta=text, **extra)

    def _add(self, kind: str, fields: Chunk) -> Iterator[Chunk]:
        index = len(self._output)
        id = f"{_PREFIXES[kind]}_{self._head['id'].removeprefix('resp_')}{index}"
        self._open = {"id": id, "type": kind, "status": "in_progress", **fields}
        self._output.append(self._open)
        shown = self._open | ({"content": []} if "content" in fields else {})  # it is about to be added to
        yield self._event("response.output_item.added", output_index=index, item=shown)

    def _close(self, status: str) -> Iterator[Chunk]:
        item, place = self._open, self._place()
        if item is None:
            return
        if item["type"] == "function_call":
            yield self._event("response.function_call_arguments.done", **place, arguments=item["arguments"])
        elif item["type"] == "custom_tool_call":
            item["input"] = input_of(self._arguments)
            yield self._event("response.custom_tool_call_input.delta", **place, delta=item["input"])
            yield self._event("response.custom_tool_call_input.done", **place, input=item["input"])
        else:
            part = item["content"][0]
            if item["type"] == "message":
                part["logprobs"] = self._entries.close() if self._logprobs else []
                yield self._event(
                    "response.output_text.done", **place, content_index=0, text=part["text"], logprobs=part["logprobs"]
                )  # fmt: skip
            else:
                yield self._event("response.reasoning_text.done", **place, content_index=0, text=part["text"])
            yield self._event("response.content_part.done", **place, content_index=0, part=part)
        item["status"] = status
        self._open = None
        yield self._event("response.output_item.done", output_index=place["output_index"], item=item)

    def _end(self, finished: Finished, *, cut: bool) -> Iterator[Chunk]:
        status = "incomplete" if cut else "completed"
        yield from self._close(status)
        usage = {
            "input_tokens": finished.prompt_tokens,
            "input_tokens_details": {"cached_tokens": finished.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": finished.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": finished.reasoning_tokens},
            "total_tokens": finished.prompt_tokens + finished.completion_tokens,
        }
        details = {"reason": "max_output_tokens"} if cut else None
        response = self._response(status) | {"output": self._output, "usage": usage, "incomplete_details": details}
        if self._keep:
            self._keep(response)
        yield self._event(f"response.{status}", response=response)

    def _response(self, status: str) -> Chunk:
        return {**self._head, "status": status, "error": None, "incomplete_details": None, "output": [], "usage": None}

    def _item(self) -> Chunk:
        assert self._open is not None
        return self._open

    def _place(self) -> Chunk:
        return {"item_id": self._open["id"], "output_index": len(self._output) - 1} if self._open else {}

    def _event(self, name: str, **fields: Any) -> Chunk:
        self._sequence += 1
        return {"type": name, "sequence_number": self._sequence, **fields}
