"""Streams to whole answers, by the public descriptions of the formats, and whether two answers are the same. Knows no server."""

import json
from typing import Any

Json = dict[str, Any]

# What belongs to one request and not to its answer: names, times, and what the server had computed before.
OWN = {
    "id",
    "item_id",
    "call_id",
    "created",
    "created_at",
    "completed_at",
    "object",
    "timings",
    "cached_tokens",
    "service_tier",
    "cache_read_input_tokens",
}
TOLERANCE = 1e-3  # of logprobs: the last digits depend on what else is computed in the same step


def chat(chunks: list[Json]) -> Json:
    """Chunks of chat completions."""
    choices: dict[int, Json] = {}
    for chunk in chunks:
        for part in chunk["choices"]:
            whole = choices.setdefault(part["index"], {"index": part["index"], "message": {}, "logprobs": None, "finish_reason": None})
            _add_delta(whole["message"], part["delta"])
            _add_ends(whole, part)
    return _head(chunks) | {"choices": [choices[index] for index in sorted(choices)]}


def completion(chunks: list[Json]) -> Json:
    """Chunks of text completions."""
    choices: dict[int, Json] = {}
    for chunk in chunks:
        for part in chunk["choices"]:
            whole = choices.setdefault(part["index"], {"index": part["index"], "text": "", "logprobs": None, "finish_reason": None})
            whole["text"] += part["text"]
            _add_ends(whole, part)
    return _head(chunks) | {"choices": [choices[index] for index in sorted(choices)]}


def message(events: list[Json]) -> Json:
    """Events of Anthropic's Messages API."""
    whole: Json = {}
    arguments: dict[int, str] = {}
    for event in events:
        kind = event["type"]
        if kind == "message_start":
            whole = {**event["message"], "content": []}
        elif kind == "content_block_start":
            assert event["index"] == len(whole["content"])
            whole["content"].append(dict(event["content_block"]))
        elif kind == "content_block_delta":
            block, delta = whole["content"][event["index"]], event["delta"]
            if delta["type"] == "text_delta":
                block["text"] += delta["text"]
            elif delta["type"] == "thinking_delta":
                block["thinking"] += delta["thinking"]
            elif delta["type"] == "input_json_delta":
                arguments[event["index"]] = arguments.get(event["index"], "") + delta["partial_json"]
        elif kind == "message_delta":
            whole |= event["delta"]
            whole["usage"] = {**whole["usage"], **event["usage"]}
    for index, text in arguments.items():
        whole["content"][index]["input"] = json.loads(text or "{}")
    return whole


def response(events: list[Json]) -> Json:
    """Events of OpenAI's Responses API; what its deltas say is held against what its last event says."""
    last = events[-1]["response"]
    texts: dict[tuple[int, int], str] = {}
    arguments: dict[int, str] = {}
    for event in events:
        if event["type"] == "response.output_text.delta":
            place = event["output_index"], event["content_index"]
            texts[place] = texts.get(place, "") + event["delta"]
        elif event["type"] == "response.function_call_arguments.delta":
            arguments[event["output_index"]] = arguments.get(event["output_index"], "") + event["delta"]
    for (item, part), text in texts.items():
        assert last["output"][item]["content"][part]["text"] == text
    for item, text in arguments.items():
        assert last["output"][item]["arguments"] == text
    return last


def _head(chunks: list[Json]) -> Json:
    usage = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    head = {key: chunks[0][key] for key in ("id", "created", "model", "system_fingerprint") if key in chunks[0]}
    return head | {"usage": usage[-1] if usage else None}


def _add_delta(whole: Json, delta: Json) -> None:
    for key, value in delta.items():
        if key == "tool_calls":
            for piece in value or []:
                _add_call(whole.setdefault("tool_calls", []), piece)
        elif isinstance(value, str) and key != "role":
            whole[key] = whole.get(key, "") + value
        elif value is not None:
            whole[key] = value


def _add_call(calls: list[Json], piece: Json) -> None:
    """As the SDKs do: every string is joined, so that a name which is sent twice stands there twice."""
    if piece["index"] == len(calls):
        calls.append({"function": {"name": "", "arguments": ""}})
    call = calls[piece["index"]]
    for key in ("id", "type"):
        if key in piece:
            call[key] = call.get(key, "") + piece[key]
    for key, value in piece.get("function", {}).items():
        call["function"][key] += value or ""


def _add_ends(whole: Json, part: Json) -> None:
    if more := part.get("logprobs"):
        known = whole["logprobs"] or {}
        whole["logprobs"] = {key: known.get(key, []) + value if isinstance(value, list) else value for key, value in more.items()}
    if part.get("finish_reason"):
        assert whole["finish_reason"] is None, "a choice ends once"
        whole["finish_reason"] = part["finish_reason"]


def assert_same(plain: Any, folded: Any, at: str = "answer") -> None:
    """Field by field. What is null or empty may as well not be there."""
    if isinstance(plain, dict) and isinstance(folded, dict):
        left, right = _said(plain), _said(folded)
        assert set(left) == set(right), f"{at}: plain has {sorted(left)}, streamed has {sorted(right)}"
        for key in left:
            assert_same(left[key], right[key], f"{at}.{key}")
    elif isinstance(plain, list) and isinstance(folded, list):
        assert len(plain) == len(folded), f"{at}: {len(plain)} plain, {len(folded)} streamed"
        for index, pair in enumerate(zip(plain, folded, strict=True)):
            assert_same(*pair, f"{at}[{index}]")
    elif isinstance(plain, float) and isinstance(folded, (int, float)):
        assert abs(plain - folded) <= TOLERANCE, f"{at}: {plain} plain, {folded} streamed"
    else:
        assert plain == folded, f"{at}: {plain!r} plain, {folded!r} streamed"


def _said(value: Json) -> Json:
    return {key: one for key, one in value.items() if key not in OWN and one not in (None, "", [], {})}
