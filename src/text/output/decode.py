"""From token bytes to text that may be shown: two small machines with push and flush. Knows nothing of tokens or requests.

Each holds back only what the next push can still change. What they give out, joined, does not depend on how the input
was cut into pushes.
"""

import codecs
from collections.abc import Sequence


class Utf8Decoder:
    """Bytes to text. Invalid bytes become U+FFFD once no byte to come can make them valid."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, data: bytes) -> str:
        return self._decoder.decode(data)

    def flush(self) -> str:
        """No text: a character that the end of the completion cuts in half is dropped, not shown as U+FFFD."""
        self._decoder.reset()
        return ""


class StopMachine:
    """Ends a text before the first stop string in it: the one that is complete first, and of those that end together the longest.

    So a text stops at the same place whether it comes by the character or at once, and never waits for a longer match.
    """

    def __init__(self, stops: Sequence[str], *, included: bool = False) -> None:
        """`included`: the stop string is a part of the text."""
        assert all(stops)
        self.found: str | None = None  # the stop string that ended the text
        self.unsaid = 0  # characters at the end of what was pushed that were not given out
        self._included = included
        self._stops = [_Stop(text) for text in stops]
        self._held = ""  # the end of the text so far, where it is the beginning of a stop string

    def push(self, text: str) -> str:
        """The text, as far as no stop string can begin in it. "" after a stop."""
        if self.stopped or not self._stops:
            self.unsaid += len(text) if self.stopped else 0
            return "" if self.stopped else text
        known = self._held + text
        for end, character in enumerate(text, start=len(self._held) + 1):
            complete = [stop.text for stop in self._stops if stop.advance(character)]
            if complete:
                self.found, self._held = max(complete, key=len), ""
                kept = end if self._included else end - len(self.found)
                self.unsaid = len(known) - kept
                return known[:kept]
        self.unsaid = max(stop.matched for stop in self._stops)
        sure = len(known) - self.unsaid
        self._held = known[sure:]
        return known[:sure]

    @property
    def stopped(self) -> bool:
        return self.found is not None

    def flush(self) -> str:
        """What was held back: the text has ended, so it was no stop string."""
        held, self._held = self._held, ""
        self.unsaid -= len(held)
        return held


class _Stop:
    """One stop string, and how many of its characters the text so far ends with. Never looks at a character twice
    (Knuth, Morris and Pratt, "Fast pattern matching in strings", 1977)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.matched = 0
        self._shorter = _borders(text)

    def advance(self, character: str) -> bool:
        """Whether the stop string is complete with this character. Not to be called again once it is."""
        while self.matched and self.text[self.matched] != character:
            self.matched = self._shorter[self.matched - 1]
        if self.text[self.matched] == character:
            self.matched += 1
        return self.matched == len(self.text)


def _borders(text: str) -> list[int]:
    """For each beginning of the text, the length of its longest proper ending that the text begins with too."""
    borders = [0] * len(text)
    length = 0
    for end in range(1, len(text)):
        while length and text[end] != text[length]:
            length = borders[length - 1]
        if text[end] == text[length]:
            length += 1
        borders[end] = length
    return borders
