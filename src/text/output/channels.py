"""Which part of an answer is what: content, reasoning, tool calls. Knows nothing of tokens or requests.

A machine takes the answer's text piece by piece, however it is cut, and says what each is. It holds back what it cannot
tell yet.
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
class Said:
    """What a piece of text turned out to be."""

    content: str = ""
    reasoning: str = ""
    calls: list[CallPiece] = field(default_factory=list)

    def add(self, more: "Said") -> None:
        self.content += more.content
        self.reasoning += more.reasoning
        self.calls += more.calls


class Channels(ABC):
    """One answer's. After a flush it is of no use."""

    called = False  # whether the answer holds a tool call
    thinks = False  # whether what comes next is reasoning

    @abstractmethod
    def push(self, text: str) -> Said: ...

    @abstractmethod
    def flush(self) -> Said:
        """What was held back: the answer has ended."""


class PlainText(Channels):
    """All of it is content."""

    def push(self, text: str) -> Said:
        return Said(content=text)

    def flush(self) -> Said:
        return Said()
