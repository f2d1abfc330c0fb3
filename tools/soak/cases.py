"""What is asked: questions with one right answer each, and others of which the form is known. Sends nothing."""

import random
from typing import Any

import msgspec

from tools.soak.reference import Reference

CHAT, COMPLETION, EMBEDDING = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
TOKENS = 48  # of an answer, at most
TEMPERATURE, TOP = 0.8, 20

_THINGS = ("river", "house", "letter", "machine", "winter", "clock")
_TASKS = ("Tell a story about the {}.", "What is a {}?")
_BEGINNINGS = (
    "The quick brown fox jumps over the lazy dog. The quick brown fox jumps over",
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,",
    "Monday, Tuesday, Wednesday,",
    "a b c d e f g h i j k",
    "To be, or not to be, that is",
    "two four six eight two four six eight two four",
    "import os\nimport sys\nimport json\n\ndef main():\n    ",
    "Once upon a time there was a",
)


class Case(msgspec.Struct, frozen=True):
    """A request with one right answer: greedy, or with a seed."""

    path: str
    body: dict[str, Any]
    references: list[Reference] = []  # by choice

    @property
    def temperature(self) -> float:
        return float(self.body["temperature"])


def candidates(model: str, seed: int) -> list[Case]:
    """More than are used: those are chosen whose answers are the surest."""
    draw = random.Random(seed)
    found = []
    for number, (thing, task) in enumerate((thing, task) for thing in _THINGS for task in _TASKS):
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": task.format(thing)}], "max_tokens": TOKENS}
        sampled = {"temperature": TEMPERATURE, "top_k": TOP, "seed": draw.randrange(2**31)}
        found.append(Case(CHAT, {**body, "temperature": 0, "ignore_eos": number % 2 == 0}))
        found.append(Case(CHAT, {**body, **sampled, "max_tokens": TOKENS // 2, "n": 2 if number % 4 == 0 else 1}))
        if number % 3 == 0:
            found.append(Case(CHAT, {**body, "temperature": 0, "stop": [". ", "\n\n"]}))
    found += [Case(COMPLETION, {"model": model, "prompt": text, "max_tokens": TOKENS, "temperature": 0, "seed": 1}) for text in _BEGINNINGS]
    return found


def with_logprobs(case: Case) -> bytes:
    """The same request, which also tells what else might have been drawn."""
    asked = {"logprobs": 5} if case.path == COMPLETION else {"logprobs": True, "top_logprobs": TOP}
    return msgspec.json.encode({**case.body, **asked})


def cut_before_ties(case: Case) -> Case:
    """A greedy answer is asked for up to its first near tie, so that it has one right text."""
    if case.temperature or "stop" in case.body:
        return case
    return msgspec.structs.replace(case, body={**case.body, "max_tokens": max(1, case.references[0].certain())})


def chosen(cases: list[Case], count: int) -> list[Case]:
    """Of each kind those that are sure for longest, or of drawn ones the longest."""
    kinds: dict[tuple[str, bool, bool], list[Case]] = {}
    for case in cases:
        kinds.setdefault((case.path, bool(case.temperature), "stop" in case.body), []).append(case)
    return [case for of in kinds.values() for case in sorted(of, key=lambda case: -_length(case))[:count]]


def _length(case: Case) -> int:
    return len(case.references[0].places) if case.temperature else case.references[0].certain()


SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


def holds_schema(text: str) -> bool:
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return (
        isinstance(found, dict)
        and found.keys() == {"city", "days"}
        and found["city"] in ("Paris", "Rome", "Oslo")
        and type(found["days"]) is int
        and 1 <= found["days"] <= 9
    )


def structured(model: str, number: int) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": f"Where shall I go, and for how many days? Number {number}"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA}},
        "seed": number,
        "max_tokens": 200,
    }


def with_tools(model: str, number: int) -> dict[str, Any]:
    function = {"name": "book_trip", "description": "Book a trip.", "parameters": SCHEMA}
    return {
        "model": model,
        "messages": [{"role": "user", "content": f"Book me a trip. Number {number}"}],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "seed": number,
        "max_tokens": 200,
    }


def bad(model: str) -> list[tuple[str, bytes, int, str]]:
    """Path, body, and the status and code of its answer."""
    message = {"role": "user", "content": "hello"}
    chat = {"model": model, "messages": [message]}
    return [
        (CHAT, b"{", 400, "invalid_json"),
        (CHAT, b"[" * 100_000, 400, "invalid_json"),
        (CHAT, msgspec.json.encode({"model": model}), 400, "missing_required_parameter"),
        (CHAT, msgspec.json.encode({**chat, "n": 100_000}), 400, "invalid_value"),
        (CHAT, msgspec.json.encode({**chat, "temperature": -1}), 400, "invalid_value"),
        (CHAT, msgspec.json.encode({**chat, "model": "../../etc/passwd"}), 404, "model_not_found"),
        (CHAT, msgspec.json.encode({**chat, "guided_regex": "(a"}), 400, "invalid_schema"),
        (CHAT, msgspec.json.encode({**chat, "messages": [{**message, "content": "word " * 20_000}]}), 400, "context_length_exceeded"),
        (COMPLETION, msgspec.json.encode({"model": model, "prompt": [-1]}), 400, "invalid_value"),
        ("/v1/no/such/route", b"{}", 404, "not_found"),
    ]
