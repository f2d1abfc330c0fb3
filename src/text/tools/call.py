"""What a tool call is made of, and the machine that all readers of calls are built on. Knows no format."""

import json
import re
from dataclasses import dataclass
from typing import Any

from src.text.channels import CallPiece, Said
from src.text.reader import Reader

NAME = re.compile(r"[A-Za-z0-9_.\-]+")
MOST_SPACE = 4096  # characters of whitespace held back


@dataclass(frozen=True)
class Function:
    """One that the model may call. `parameters`: the JSON schema of its arguments, None where it has none."""

    name: str
    parameters: dict[str, Any] | None = None
    strict: bool = False
    param: str = "tools"  # what a refusal of the schema names


@dataclass(frozen=True)
class Call:
    name: str
    arguments: dict[str, Any]


class CallReader(Reader):
    """Says content and calls. What looked like a call, but is none, is content; whitespace around calls is dropped.

    From `_begin` on, all that is taken is kept, until `_name` has made a call of it or `_fail` content.
    """

    def __init__(self, functions: list[Function]) -> None:
        super().__init__()
        self._functions = {function.name: function for function in functions}
        self._raw: list[str] | None = None
        self._space = ""
        self._count = 0
        self._calls_said: list[tuple[int, str | None, list[str]]] = []
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
            self._content_said.append(kept)
            self._behind_call = False

    def _begin(self, taken: str = "") -> None:
        self._raw = [taken]

    def _keep(self) -> bool:
        """From here on a failure makes content of what was taken. Whether that is news."""
        if self._raw is not None:
            return False
        self._begin()
        return True

    def _let_go(self, kept: bool) -> None:
        """What was taken since `_keep` has been said, or is to be dropped."""
        if kept:
            self._raw = None

    @property
    def _is_over(self) -> bool:
        return self._ended and self._at == len(self._text)

    def _fail(self) -> None:
        """It is no call, or none any more: what was not said of it yet is content."""
        raw, self._raw = self._raw or [], None
        self._content("".join(raw))

    def _name(self, name: str) -> None:
        self._raw, self._space, self.called = None, "", True
        self._calls_said.append((self._count, name, []))
        self._count += 1
        self._behind_call = True

    def _arguments(self, text: str) -> None:
        """Goes on with the arguments of the last named call."""
        index = self._count - 1
        if not self._calls_said or self._calls_said[-1][1] is not None:
            self._calls_said.append((index, None, []))
        self._calls_said[-1][2].append(text)

    def _take_said(self) -> Said:
        said = super()._take_said()
        pieces = (CallPiece(index, name, "".join(parts)) for index, name, parts in self._calls_said)
        said.calls = [piece for piece in pieces if piece.name or piece.arguments]
        self._calls_said.clear()
        return said

    def _finish(self) -> None:
        """The last thing that `_read` does: what follows nothing else is content."""
        if self._raw is not None:
            self._fail()
        if self._space and not self._behind_call:
            self._content_said.append(self._space)
        self._space = ""


def written(arguments: dict[str, Any]) -> str:
    return json.dumps(arguments, ensure_ascii=False)
