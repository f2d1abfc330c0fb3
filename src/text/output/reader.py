"""Reads an answer as it comes: the base of the machines that tell calls and reasoning from content. Knows no format.

A subclass writes `_read` as if the whole text were there; where it is not, `_read` waits at a `yield`. No character is
looked at more than a bounded number of times, however the text is cut.
"""

import re
from abc import abstractmethod
from collections.abc import Callable, Generator
from typing import TypeVar

from src.text.output.channels import ChannelDelta, Channels

T = TypeVar("T")
Reading = Generator[None, None, T]  # waits for more text at each yield
SPACE = re.compile(r"\s*")


class Markers:
    """Texts that end a part of an answer."""

    def __init__(self, *texts: str) -> None:
        self._any = re.compile("|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)))
        self._beginnings = {text[:length] for text in texts for length in range(1, len(text))}
        self._longest = max(map(len, texts))

    def find(self, text: str, at: int) -> re.Match[str] | None:
        return self._any.search(text, at)

    def begun(self, text: str, at: int) -> int:
        """How many characters at the text's end may be the beginning of a marker."""
        most = min(self._longest - 1, len(text) - at)
        return next((length for length in range(most, 0, -1) if text[len(text) - length :] in self._beginnings), 0)


class Reader(Channels):
    def __init__(self) -> None:
        self._text = ""
        self._at = 0  # of the first character that was not taken yet
        self._ended = False
        self._content_parts: list[str] = []
        self._reasoning_parts: list[str] = []
        self._reading: Reading[None] | None = self._read()

    @abstractmethod
    def _read(self) -> Reading[None]:
        """Reads the answer from its beginning to its end."""

    def push(self, text: str) -> ChannelDelta:
        self._text = self._text[self._at :] + text
        self._at = 0
        return self._advance()

    def flush(self) -> ChannelDelta:
        self._ended = True
        return self._advance()

    def _advance(self) -> ChannelDelta:
        if self._reading:
            try:
                next(self._reading)
            except StopIteration:
                self._reading = None
        return self._take_delta()

    def _take_delta(self) -> ChannelDelta:
        delta = ChannelDelta(content="".join(self._content_parts), reasoning="".join(self._reasoning_parts))
        self._content_parts.clear()
        self._reasoning_parts.clear()
        return delta

    # The parts of `_read`. Each returns a false value once the answer has ended without it.

    def _take(self, length: int) -> str:
        taken = self._text[self._at : self._at + length]
        self._at += length
        return taken

    def _put_back(self, text: str) -> None:
        """Text that was taken last, to be looked at again."""
        if self._text.endswith(text, 0, self._at):
            self._at -= len(text)
        else:  # it came before the text that is here
            self._text, self._at = text + self._text[self._at :], 0

    def _peek(self) -> Reading[str]:
        """The next character; "" at the end."""
        while self._at == len(self._text):
            if self._ended:
                return ""
            yield
        return self._text[self._at]

    def _literal(self, literal: str) -> Reading[bool]:
        """Take the literal, if it is what follows."""
        while True:
            if self._text.startswith(literal, self._at):
                self._take(len(literal))
                return True
            rest = self._text[self._at : self._at + len(literal)]
            if self._ended or not literal.startswith(rest):
                return False
            yield

    def _ahead(self, *literals: str) -> Reading[bool]:
        """Whether one of the literals follows, or the text ends before that is certain. Takes nothing."""
        longest = max(map(len, literals))
        while True:
            rest = self._text[self._at : self._at + longest]
            if rest.startswith(literals):
                return True
            if self._ended or not any(literal.startswith(rest) for literal in literals):
                return any(literal.startswith(rest) for literal in literals)
            yield

    def _run(self, pattern: re.Pattern[str], limit: int | None = 256) -> Reading[str]:
        """Take characters as long as the pattern, which matches a run of such, fits. "" where they are more than the limit."""
        run = ""
        while (yield from self._peek()):
            match = pattern.match(self._text, self._at)
            if not match or not match[0]:
                break
            run += self._take(len(match[0]))
            if limit is not None and len(run) > limit:
                return ""
        return run

    def _spaces(self) -> Reading[None]:
        while (yield from self._peek()).isspace():
            match = SPACE.match(self._text, self._at)
            assert match
            self._take(len(match[0]))

    def _until(self, markers: Markers, emit: Callable[[str], None]) -> Reading[str]:
        """Emit what precedes the next marker, as it comes. Returns the marker, which is taken; "" where none came."""
        while True:
            if found := markers.find(self._text, self._at):
                if found.start() > self._at:
                    emit(self._take(found.start() - self._at))
                return self._take(len(found[0]))
            held = 0 if self._ended else markers.begun(self._text, self._at)
            if sure := len(self._text) - self._at - held:
                emit(self._take(sure))
            if self._ended:
                return ""
            yield
