"""A process that compiles each grammar before the runner does. Knows neither models nor requests.

llguidance's limits do not bound everything: there are grammars of a few hundred bytes that it works on for hours, and
others that end the process, for it recurses. Both are to cost that process alone.
"""

import msgspec

from src.errors import EngineError
from src.text.child_process import ChildFailed, ChildProcess, ChildTimedOut, Memory
from src.text.grammar.matcher import Refused, TooSlow
from src.text.grammar.vocabulary import Vocabulary

MEMORY = Memory(1 << 30)  # more than it has with the vocabulary


class Setup(msgspec.Struct, frozen=True):
    vocabulary: Vocabulary
    seconds: float  # to compile one grammar


class CompilerProcess:
    """Any thread may ask; one grammar at a time. The first starts the process."""

    def __init__(self, vocabulary: Vocabulary, seconds: float) -> None:
        self._seconds = seconds
        self._child = ChildProcess("src.text.grammar", msgspec.msgpack.encode(Setup(vocabulary, seconds)), MEMORY)

    @property
    def pid(self) -> int | None:
        return self._child.pid

    def start(self) -> None:
        """Raises EngineError where the process cannot be started."""
        try:
            self._child.start()
        except ChildFailed as error:
            raise EngineError("The process that compiles grammars did not start.") from error

    def check(self, source: str, seconds: float) -> None:
        """Raises Refused, and TooSlow after so many seconds; EngineError where the process cannot be started again."""
        try:
            answer = self._child.ask(msgspec.msgpack.encode(source), seconds)
        except ChildTimedOut:
            self.start()
            raise TooSlow(self._seconds) from None
        except ChildFailed:
            self.start()  # now: it counts for whoever ended it
            raise Refused("it is too complex: use a simpler schema or expression") from None
        reason = msgspec.msgpack.decode(answer, type=str | None)
        if reason is not None:
            raise Refused(reason)

    def close(self) -> None:
        self._child.close()
