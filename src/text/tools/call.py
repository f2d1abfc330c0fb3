"""What a tool call is made of, and the machine that all readers of calls are built on. Knows no format."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from src.errors import FieldPath
from src.text.json_schema import Document, Schema
from src.text.json_text import HALF, parsed
from src.text.output.channels import CallPiece, ChannelDelta
from src.text.output.reader import Reader
from src.text.tools.schema import closed, properties, required

NAME = re.compile(r"[A-Za-z0-9_.\-]+")
MOST_SPACE = 4096  # characters of whitespace held back


@dataclass(frozen=True)
class Function:
    """One that the model may call. `parameters`: the JSON schema of its arguments, None where it has none."""

    name: str
    parameters: dict[str, Any] | None = None
    strict: bool = False
    param: str | FieldPath = "tools"  # of the schema, for a refusal

    @cached_property
    def document(self) -> Document:
        """The schema of its arguments, which names all of them."""
        return Document(closed(self.parameters))

    @property
    def properties(self) -> dict[str, Schema]:
        return properties(self.document.whole(self.document.root))

    @property
    def required(self) -> set[str]:
        return required(self.document.whole(self.document.root))


@dataclass(frozen=True)
class Call:
    name: str
    arguments: dict[str, Any]


class CallReader(Reader):
    """Emits content and calls. What looked like a call, but is none, is content; whitespace around calls is dropped.

    From `_begin` on, all that is taken is kept, until `_name` has made a call of it or `_fail` content.
    """

    def __init__(self, functions: list[Function]) -> None:
        super().__init__()
        self._functions = {function.name: function for function in functions}
        self._raw: list[str] | None = None
        self._space = ""
        self._count = 0
        self._call_parts: list[tuple[int, str | None, list[str]]] = []
        self._behind_call = False

    def _take(self, length: int) -> str:
        taken = super()._take(length)
        if self._raw is not None:
            self._raw.append(taken)
        return taken

    def _content(self, text: str) -> None:
        text = self._space + text
        kept = text.rstrip() if len(text) < MOST_SPACE or not text.isspace() else text
        self._space = text[len(kept) :]
        if kept:
            self._content_parts.append(kept)
            self._behind_call = False

    def _begin(self, taken: str = "") -> None:
        self._raw = [taken]

    def _hold(self) -> bool:
        """From here on, a failure makes content of what was taken. Returns whether that is new."""
        if self._raw is not None:
            return False
        self._begin()
        return True

    def _release(self, kept: bool) -> None:
        """What was taken since `_hold` was emitted, or is to be dropped."""
        if kept:
            self._raw = None

    @property
    def _is_over(self) -> bool:
        return self._ended and self._at == len(self._text)

    def _fail(self) -> None:
        """It is no call, or none any more: what was not emitted of it yet is content."""
        raw, self._raw = self._raw or [], None
        self._content("".join(raw))

    def _name(self, name: str) -> None:
        self._raw, self._space, self.called = None, "", True
        self._call_parts.append((self._count, name, []))
        self._count += 1
        self._behind_call = True

    def _arguments(self, text: str) -> None:
        """Goes on with the arguments of the last named call."""
        index = self._count - 1
        if not self._call_parts or self._call_parts[-1][1] is not None:
            self._call_parts.append((index, None, []))
        self._call_parts[-1][2].append(HALF.sub("\ufffd", text))

    def _take_delta(self) -> ChannelDelta:
        delta = super()._take_delta()
        pieces = (CallPiece(index, name, "".join(parts)) for index, name, parts in self._call_parts)
        delta.calls = [piece for piece in pieces if piece.name or piece.arguments]
        self._call_parts.clear()
        return delta

    def _finish(self) -> None:
        """The last thing that `_read` does: what follows nothing else is content."""
        if self._raw is not None:
            self._fail()
        if self._space and not self._behind_call:
            self._content_parts.append(self._space)
        self._space = ""


def as_object(arguments: str) -> dict[str, Any]:
    """A call's arguments as an object, whatever they are: a model may have been cut off in them, or written something else."""
    value: Any = arguments
    for _ in range(2):  # models write JSON in a string, too
        try:
            value = parsed(value.strip() or "{}")
        except (ValueError, RecursionError):
            break
        if value is None:
            return {}
        if isinstance(value, dict):
            return value
        if not isinstance(value, str):
            break
    return {"arguments": arguments}
