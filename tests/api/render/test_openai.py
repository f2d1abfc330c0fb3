"""Events become OpenAI's chunks in OpenAI's order, and the plain reply is the fold of what streaming would have sent."""

import tracemalloc

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.api.render.base import DONE, ResponseOptions
from src.api.render.openai import ChatRenderer, CompletionRenderer, usage
from src.protocol import Delta, Ended, Finished, Started, TokenLogprob, ToolCallDelta

STARTED = Started(prompt_tokens=5, cached_tokens=2, queue_seconds=0.1)
ENDED = Ended(reason="length")
FINISHED = Finished(prompt_tokens=5, completion_tokens=3, cached_tokens=2)
EVENTS = [STARTED, Delta(text="Hel"), Delta(text="lo"), ENDED, FINISHED]
USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 3,
    "total_tokens": 8,
    "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
CHAT_HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "m", "system_fingerprint": "fp_1"}
TEXT_HEAD = {"id": "cmpl-1", "object": "text_completion", "created": 7, "model": "m", "system_fingerprint": "fp_1"}
RENDERERS = pytest.mark.parametrize("kind", [ChatRenderer, CompletionRenderer])


def renderer(kind: type, include_usage: bool = True, **wants: object):
    id = "chatcmpl-1" if kind is ChatRenderer else "cmpl-1"
    return kind(id=id, created=7, model="m", fingerprint="fp_1", wants=ResponseOptions(usage=include_usage, **wants))


def chat_choice(delta: dict, finish_reason: str | None = None) -> dict:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def text_choice(text: str, finish_reason: str | None = None) -> dict:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}


CHAT_CHOICES = [
    chat_choice({"role": "assistant"}),
    chat_choice({"content": "Hel"}),
    chat_choice({"content": "lo"}),
    chat_choice({}, "length"),
]
TEXT_CHOICES = [text_choice("Hel"), text_choice("lo"), text_choice("", "length")]


def test_a_chat_stream_is_role_then_content_then_the_reason():
    expected = [{**CHAT_HEAD, "choices": [choice]} for choice in CHAT_CHOICES]
    assert list(renderer(ChatRenderer, include_usage=False).chunks(EVENTS)) == expected


def test_a_text_stream_is_text_then_the_reason():
    expected = [{**TEXT_HEAD, "choices": [choice]} for choice in TEXT_CHOICES]
    assert list(renderer(CompletionRenderer, include_usage=False).chunks(EVENTS)) == expected


@pytest.mark.parametrize(
    ("kind", "head", "choices"), [(ChatRenderer, CHAT_HEAD, CHAT_CHOICES), (CompletionRenderer, TEXT_HEAD, TEXT_CHOICES)]
)
def test_usage_where_asked_for_is_null_in_every_chunk_but_one_more_at_the_end(kind, head, choices):
    expected = [{**head, "choices": [choice], "usage": None} for choice in choices]
    assert list(renderer(kind).chunks(EVENTS)) == [*expected, {**head, "choices": [], "usage": USAGE}]


def test_a_chat_reply_is_openais_object():
    chunks = renderer(ChatRenderer)
    assert chunks.fold(chunks.chunks(EVENTS)) == {
        **CHAT_HEAD,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "length",
            }
        ],
        "usage": USAGE,
    }


def test_a_text_reply_is_openais_object():
    chunks = renderer(CompletionRenderer)
    assert chunks.fold(chunks.chunks(EVENTS)) == {**TEXT_HEAD, "choices": [text_choice("Hello", "length")], "usage": USAGE}


@RENDERERS
def test_chunks_come_as_their_events_come(kind):
    taken = []

    def events():
        for event in EVENTS:
            taken.append(event)
            yield event

    chunks = renderer(kind).chunks(events())
    next(chunks)
    assert len(taken) == (1 if kind is ChatRenderer else 2), "a chunk waited for a later event"


@RENDERERS
def test_a_reply_ends_with_its_last_event(kind):
    def events():
        yield from EVENTS
        raise AssertionError("read on")

    assert list(renderer(kind).chunks(events()))[-1]["usage"] == USAGE


@RENDERERS
def test_an_empty_answer_has_all_its_fields(kind):
    of = renderer(kind)
    [choice] = of.fold(of.chunks([STARTED, ENDED, FINISHED]))["choices"]
    assert choice["message"]["content"] == "" if kind is ChatRenderer else choice["text"] == ""


@pytest.mark.parametrize(("kind", "nothing"), [(ChatRenderer, {"delta": {}}), (CompletionRenderer, {"text": ""})])
def test_silence_is_an_event_that_adds_nothing_and_has_no_number(kind, nothing):
    of = renderer(kind, include_usage=False)
    frames = list(of.frames(of.chunks([STARTED, Delta(text="Hel"), None, *EVENTS[2:]]), 0))
    [silence] = [frame for frame in frames if not frame.startswith(b"id: ") and frame != DONE]
    [choice] = msgspec.json.decode(silence.removeprefix(b"data: "))["choices"]
    assert choice == {"index": 0, **nothing, "logprobs": None, "finish_reason": None}
    numbered = [int(frame.partition(b"\n")[0].removeprefix(b"id: ")) for frame in frames if frame.startswith(b"id: ")]
    assert numbered == [*range(1, len(numbered) + 1)]


def test_silence_is_of_a_choice_that_has_not_ended():
    of = renderer(ChatRenderer, include_usage=False, choices=2)
    *_, silence, _done = of.frames(of.chunks([STARTED, ENDED, None]))
    assert msgspec.json.decode(silence.removeprefix(b"data: "))["choices"][0]["index"] == 1


def test_a_stream_is_framed_as_server_sent_events_and_ends_with_done():
    of = renderer(ChatRenderer, include_usage=False)
    frames = list(of.frames(of.chunks(EVENTS)))
    assert frames[-1] == DONE == b"data: [DONE]\n\n"
    assert frames.count(DONE) == 1
    bodies = [frame.removeprefix(b"data: ") for frame in frames[:-1]]
    assert [msgspec.json.decode(body) for body in bodies] == [{**CHAT_HEAD, "choices": [choice]} for choice in CHAT_CHOICES]
    assert all(body.endswith(b"\n\n") and body.count(b"\n") == 2 for body in bodies)


def test_a_stream_that_fails_has_no_done():
    def events():
        yield from EVENTS[:2]
        raise RuntimeError

    frames, of = [], renderer(ChatRenderer)
    with pytest.raises(RuntimeError):
        frames.extend(of.frames(of.chunks(events())))
    assert DONE not in frames


def test_silence_is_nothing_in_a_plain_reply():
    of = renderer(CompletionRenderer)
    silent = [None, STARTED, None, Delta(text="Hel"), None, Delta(text="lo"), None, ENDED, FINISHED]
    assert list(of.chunks(silent)).count(None) == 4
    assert of.fold(of.chunks(silent)) == of.fold(of.chunks(EVENTS))


def test_usage_sums_prompt_and_completion():
    assert usage(FINISHED) == USAGE


def text_of(frames: list[bytes], kind: type) -> tuple[str, set[str | None], dict | None]:
    """What a client makes of a stream: the text, the finish reasons and the usage."""
    chunks = [msgspec.json.decode(frame.removeprefix(b"data: ")) for frame in frames if frame != DONE]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    text = "".join(choice["delta"].get("content", "") if kind is ChatRenderer else choice["text"] for choice in choices)
    reasons = {choice["finish_reason"] for choice in choices} - {None}
    return text, reasons, next((chunk["usage"] for chunk in chunks if chunk.get("usage")), None)


@RENDERERS
@settings(deadline=None)
@given(texts=st.lists(st.none() | st.text()), reason=st.sampled_from(["stop", "length"]), counts=st.tuples(*[st.integers(0, 2**31)] * 3))
def test_streamed_and_plain_replies_agree(kind, texts, reason, counts):
    finished = Finished(prompt_tokens=counts[0], completion_tokens=counts[1], cached_tokens=counts[2])
    events = [STARTED, *(None if text is None else Delta(text=text) for text in texts), Ended(reason=reason), finished]
    whole = renderer(kind).fold(renderer(kind).chunks(events))
    [choice] = whole["choices"]
    text = choice["message"]["content"] if kind is ChatRenderer else choice["text"]
    assert text == "".join(text or "" for text in texts)
    of = renderer(kind)
    frames = list(of.frames(of.chunks(events)))
    assert text_of(frames, kind) == (text, {choice["finish_reason"]}, whole["usage"])
    assert frames[-1] == DONE


TWO = [
    STARTED,
    Delta(index=1, text="b", tokens=[1]),
    Delta(index=0, text="a", tokens=[2, 3]),
    Ended(index=1, reason="stop"),
    Delta(index=0, text="A", tokens=[4]),
    Ended(index=0, reason="length"),
    FINISHED,
]


@RENDERERS
def test_choices_are_told_apart_and_come_in_order(kind):
    of = renderer(kind, choices=2)
    choices = of.fold(of.chunks(TWO))["choices"]
    said = [choice["message"]["content"] if kind is ChatRenderer else choice["text"] for choice in choices]
    assert (said, [choice["finish_reason"] for choice in choices]) == (["aA", "b"], ["length", "stop"])


@RENDERERS
def test_running_usage_counts_what_was_said_so_far(kind):
    chunks = list(renderer(kind, choices=2, running_usage=True).chunks(TWO))
    counts = [
        chunk["usage"]["completion_tokens"] for chunk in chunks if chunk["choices"] and chunk["choices"][0].get("finish_reason") is None
    ]
    assert counts[-3:] == [1, 3, 4]
    assert all(chunk["usage"]["prompt_tokens"] == 5 for chunk in chunks)


def test_timings_are_of_the_prompt_and_of_the_tokens_after_the_first():
    finished = Finished(prompt_tokens=12, completion_tokens=5, cached_tokens=2, prefill_seconds=0.5, decode_seconds=2)
    of = renderer(ChatRenderer, include_usage=False, timings=True)
    *_, last = of.chunks([STARTED, ENDED, finished])
    assert last["choices"] == []
    assert last["timings"] == {
        "cache_n": 2, "prompt_n": 10, "prompt_ms": 500, "prompt_per_second": 20,
        "predicted_n": 5, "predicted_ms": 2000, "predicted_per_second": 2,
    }  # fmt: skip


LOGPROBS = [
    STARTED,
    Delta(text="a", logprobs=[TokenLogprob(token="a", logprob=-0.5, bytes=[97], top=[TokenLogprob(token="b", logprob=-0.25, bytes=[98])])]),
    Delta(text="bc", logprobs=[TokenLogprob(token="bc", logprob=-1.5, bytes=[98, 99], offset=1)]),
    Delta(text="d", logprobs=[TokenLogprob(token="d", logprob=-2, bytes=[100], offset=3)]),
    ENDED,
    FINISHED,
]


def decoded(reply: dict) -> dict:
    return msgspec.json.decode(msgspec.json.encode(reply))


def test_logprobs_of_a_chat_are_one_list_of_its_tokens():
    of = renderer(ChatRenderer, logprobs=True)
    [choice] = decoded(of.fold(of.chunks(LOGPROBS)))["choices"]
    content = choice["logprobs"]["content"]
    assert [entry["token"] for entry in content] == ["a", "bc", "d"]
    assert content[0] == {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -0.25, "bytes": [98]}]}
    assert choice["logprobs"]["refusal"] is None


def test_logprobs_of_a_completion_are_lists_side_by_side():
    of = renderer(CompletionRenderer, logprobs=True)
    [choice] = decoded(of.fold(of.chunks(LOGPROBS)))["choices"]
    assert choice["logprobs"] == {
        "tokens": ["a", "bc", "d"],
        "token_logprobs": [-0.5, -1.5, -2],
        "top_logprobs": [{"b": -0.25}, {}, {}],
        "text_offset": [0, 1, 3],
    }


def test_a_completion_has_all_of_the_likeliest_tokens_also_those_that_are_parts_of_a_character():
    def entry(data: bytes, logprob: float, top: list[TokenLogprob] | None = None) -> TokenLogprob:
        return TokenLogprob(token=data.decode(errors="replace"), logprob=logprob, bytes=list(data), top=top or [])

    likeliest = [entry(b"\xe2\x80", -0.5), entry(b"\xf0\x9f", -1), entry(b"A", -2), entry(b"A", -3), entry("\ufffd".encode(), -4)]
    events = [STARTED, Delta(text="\u2019", logprobs=[entry(b"\xe2\x80", -0.5, likeliest)]), ENDED, FINISHED]
    of = renderer(CompletionRenderer, logprobs=True)
    logprobs = decoded(of.fold(of.chunks(events)))["choices"][0]["logprobs"]
    assert logprobs["tokens"] == [r"bytes:\xe2\x80"]
    assert logprobs["top_logprobs"] == [{r"bytes:\xe2\x80": -0.5, r"bytes:\xf0\x9f": -1, "A": -2, "\ufffd": -4}]


def test_tool_calls_are_joined_by_their_index_and_leave_no_content():
    calls = [
        ToolCallDelta(index=0, id="call_a", name="f"),
        ToolCallDelta(index=0, arguments='{"x"'),
        ToolCallDelta(index=1, id="call_b", name="g"),
        ToolCallDelta(index=0, arguments=": 1}"),
        ToolCallDelta(index=1, arguments="{}"),
    ]
    of = renderer(ChatRenderer)
    events = [STARTED, *(Delta(tool_calls=[call]) for call in calls), Ended(reason="tool_calls"), FINISHED]
    [choice] = of.fold(of.chunks(events))["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
            {"id": "call_b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    }
    deltas = [chunk["choices"][0]["delta"] for chunk in of.chunks(events) if chunk["choices"]]
    assert deltas[1] == {"tool_calls": [{"index": 0, "id": "call_a", "type": "function", "function": {"name": "f", "arguments": ""}}]}
    assert deltas[2] == {"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]}


def test_reasoning_is_told_apart_from_content_by_both_of_its_names():
    of = renderer(ChatRenderer)
    events = [STARTED, Delta(reasoning="hm"), Delta(reasoning="m"), Delta(text="yes"), ENDED, FINISHED]
    [choice] = of.fold(of.chunks(events))["choices"]
    assert (choice["message"]["reasoning_content"], choice["message"]["content"]) == ("hmm", "yes")
    assert choice["message"]["reasoning"] == "hmm"
    deltas = [chunk["choices"][0]["delta"] for chunk in of.chunks(events) if chunk["choices"]]
    assert deltas[1] == {"reasoning_content": "hm", "reasoning": "hm"}


def test_a_chunk_has_one_piece_of_a_call_at_most():
    """The SDK takes a first chunk's list as it is: two pieces of one call in it would become two calls."""
    calls = [
        ToolCallDelta(index=0, id="call_a", name="f"),
        ToolCallDelta(index=0, arguments="{}"),
        ToolCallDelta(index=1, id="call_b", name="g"),
    ]
    of = renderer(ChatRenderer)
    events = [STARTED, Delta(text="So:", tool_calls=calls, tokens=[1]), Ended(reason="tool_calls"), FINISHED]
    deltas = [chunk["choices"][0]["delta"] for chunk in of.chunks(events) if chunk["choices"]]
    assert [len(delta.get("tool_calls", [])) for delta in deltas] == [0, 1, 1, 1, 0]
    assert [delta.get("content") for delta in deltas] == [None, "So:", None, None, None]


@RENDERERS
def test_a_plain_reply_with_logprobs_takes_little_more_memory_than_its_json(kind):
    top = [TokenLogprob(token=f"token {number}", logprob=-0.1234, bytes=list(b"token %d" % number)) for number in range(20)]
    delta = Delta(text="x", logprobs=[TokenLogprob(token="x", logprob=-0.5, bytes=[120], top=top)])
    of = renderer(kind, logprobs=True)
    tracemalloc.start()
    try:
        encoded = msgspec.json.encode(of.fold(of.chunks([STARTED, *[delta] * 1000, ENDED, FINISHED])))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(encoded) > 300_000
    assert peak < 4 * len(encoded)
