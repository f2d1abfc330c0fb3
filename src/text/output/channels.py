"""Splits an answer's text into channels: content, reasoning, tool calls. Knows nothing of tokens or requests.

A machine takes the text piece by piece, however it is cut. It holds back what it cannot assign yet.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field


@dataclass
class CallPiece:
    """The first piece of a call has its name; further ones are pieces of its arguments' JSON."""

    index: int
    name: str | None = None
    arguments: str = ""


@dataclass
class ChannelDelta:
    """What the channels gain by a piece of text."""

    content: str = ""
    reasoning: str = ""
    calls: list[CallPiece] = field(default_factory=list)

    def add(self, more: "ChannelDelta") -> None:
        self.content += more.content
        self.reasoning += more.reasoning
        self.calls += more.calls


class Channels(ABC):
    """One answer's. After a flush it is of no use."""

    called = False  # whether the answer holds a tool call
    thinks = False  # whether the next text is reasoning

    @abstractmethod
    def push(self, text: str) -> ChannelDelta: ...

    @abstractmethod
    def flush(self) -> ChannelDelta:
        """What was held back: the answer has ended."""


class PlainText(Channels):
    """All of it is content."""

    def push(self, text: str) -> ChannelDelta:
        return ChannelDelta(content=text)

    def flush(self) -> ChannelDelta:
        return ChannelDelta()
