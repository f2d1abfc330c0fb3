"""The calls and results of a conversation: whose result is whose, and the forms that templates want them in. Knows no template."""

from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from src.text.tools import mistral
from src.text.tools.call import as_object

Message = dict[str, Any]


class Pending:
    """A call that may still get its result."""

    def __init__(self, call: dict[str, Any]) -> None:
        self.call, self.answered = call, False


def paired(messages: list[Message]) -> list[Message]:
    """Every call with an ID of its own, and every result with the ID and the name of its call.

    Clients begin their IDs anew each turn, or give all calls of a turn one ID. A result is that of the nearest call before it
    with its ID; of several in one message, that of the first without a result. A result without an ID counts as having any.
    """
    ids = _Ids(messages)
    nearest: dict[str | None, deque[Pending]] = {}  # by the client's ID; None: the calls of the last message with calls
    found: list[Message] = []
    for message in messages:
        if calls := message.get("tool_calls"):
            turn = [(call["id"], Pending({**call, "id": ids.own(call["id"])})) for call in calls]
            nearest |= {None: deque()} | {id: deque() for id, _ in turn}
            for id, pending in turn:
                nearest[None].append(pending)
                nearest[id].append(pending)
            message = {**message, "tool_calls": [pending.call for _, pending in turn]}
        elif message["role"] == "tool" and (same := nearest.get(message.get("tool_call_id"))):
            call = _answered(same)
            message = {"name": call["function"]["name"], **message, "tool_call_id": call["id"]}
        found.append(message)
    return found


class _Ids:
    def __init__(self, messages: Iterable[Message]) -> None:
        calls = [call["id"] for message in messages for call in message.get("tool_calls") or []]
        self._taken = {*calls, *(message.get("tool_call_id") for message in messages)}
        self._times: Counter[str] = Counter()

    def own(self, id: str) -> str:
        """The ID itself, and from the second time on another one, which nobody has."""
        self._times[id] += 1
        if self._times[id] == 1:
            return id
        while (name := f"{id}_{self._times[id]}") in self._taken:
            self._times[id] += 1
        self._taken.add(name)
        return name


def _answered(same: deque[Pending]) -> dict[str, Any]:
    """The first call without a result; the last one where all have theirs."""
    while same[0].answered and len(same) > 1:
        same.popleft()
    same[0].answered = True
    return same[0].call


def split(messages: list[Message]) -> list[Message]:
    """Paired messages with one call each, and its result behind it."""
    results: dict[str, Message | None] = {}  # by their calls' IDs
    for message in messages:
        results |= {call["id"]: None for call in message.get("tool_calls") or []}
        id_of_call = message.get("tool_call_id")
        if id_of_call in results:
            results[id_of_call] = results[id_of_call] or message
    moved = {id(result) for result in results.values()}
    found: list[Message] = []
    for message in messages:
        for place, call in enumerate(message.get("tool_calls") or []):
            found.append({**message, "content": message.get("content") if place == 0 else None, "tool_calls": [call]})
            if result := results[call["id"]]:
                found.append(result)
        if not message.get("tool_calls") and id(message) not in moved:
            found.append(message)
    return found


def formed(message: Message, *, objects: bool, empty: str | None) -> Message:
    """Calls with their arguments as `objects` or as JSON. `empty`: the content of a message that has only calls."""
    if not message.get("tool_calls"):
        return message
    calls = message["tool_calls"]
    if objects:
        calls = [{**call, "function": {**call["function"], "arguments": as_object(call["function"]["arguments"])}} for call in calls]
    return {**message, "content": message.get("content") or empty, "tool_calls": calls}


def with_short_ids(message: Message) -> Message:
    if message.get("tool_calls"):
        return {**message, "tool_calls": [{**call, "id": mistral.short_id(call["id"])} for call in message["tool_calls"]]}
    return {**message, "tool_call_id": mistral.short_id(message["tool_call_id"])} if "tool_call_id" in message else message
