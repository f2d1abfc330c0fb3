"""Calls of custom tools, which take text: the model writes them as functions of one text, as JSON."""

import json
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from src.api.render.base import Event
from src.protocol import Delta, Ended, ToolCallDelta


def input_of(arguments: str) -> str:
    """A custom tool's text, of the JSON that the model wrote; as it stands where it was cut off."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    text = value.get("input") if isinstance(value, dict) else None
    return text if isinstance(text, str) else arguments


class CustomCalls:
    """Keeps back what the model writes as the arguments of a custom tool until the call is whole, and then puts the text in its place."""

    def __init__(self, names: Iterable[str]) -> None:
        """`names`: of the custom tools."""
        self._names = frozenset(names)
        self._open: dict[int, tuple[int, str]] = {}  # by choice: its call that is being written, by number, and what of it there is
        self._found: set[tuple[int, int]] = set()

    def has(self, choice: int, call: int) -> bool:
        """Whether the call is a custom tool's, by what was seen so far."""
        return (choice, call) in self._found

    def events(self, events: Iterable[Event | None]) -> Iterator[Event | None]:
        for event in events:
            if isinstance(event, Delta) and event.tool_calls:
                yield replace(event, tool_calls=[piece for call in event.tool_calls for piece in self._pieces(event.index, call)])
                continue
            if isinstance(event, Ended) and (rest := list(self._closed(event.index))):
                yield Delta(index=event.index, tool_calls=rest)
            yield event

    def _pieces(self, choice: int, piece: ToolCallDelta) -> Iterator[ToolCallDelta]:
        if piece.id is not None:
            yield from self._closed(choice)
            if piece.name in self._names:
                self._open[choice] = piece.index, ""
                self._found.add((choice, piece.index))
        if choice not in self._open:
            yield piece
            return
        call, written = self._open[choice]
        self._open[choice] = call, written + piece.arguments
        if piece.id is not None:
            yield replace(piece, arguments="")

    def _closed(self, choice: int) -> Iterator[ToolCallDelta]:
        if choice in self._open:
            call, written = self._open.pop(choice)
            yield ToolCallDelta(index=call, arguments=input_of(written))
