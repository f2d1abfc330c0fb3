"""Tells a model's reasoning from its answer. Knows nothing of what the answer holds: another machine reads that.

Models write `<think>…</think>` before the answer (DeepSeek R1, Qwen 3: https://huggingface.co/Qwen/Qwen3-8B), or only the
end of it, because their template opened it in the prompt.
"""

from dataclasses import dataclass
from enum import Enum

from src.text.output.channels import ChannelDelta, Channels
from src.text.output.reader import SPACE, Markers, Reader, Reading


@dataclass(frozen=True)
class Marks:
    """What reasoning stands between."""

    opening: str
    closing: str


THINK_TAGS = (Marks("<think>", "</think>"), Marks("[THINK]", "[/THINK]"))


class Phase(Enum):
    """Where the prompt leaves the model."""

    POSSIBLE = "possible"
    BEGUN = "begun"
    OVER = "over"


def phase(marks: Marks | None, prompt: str) -> Phase:
    end = prompt[-200:].rstrip()
    if marks is None or end.endswith(marks.closing):
        return Phase.OVER
    return Phase.BEGUN if end.endswith(marks.opening) else Phase.POSSIBLE


class Thinking(Reader):
    """Reasoning, without the whitespace around it; all else is for the machine behind it."""

    def __init__(self, marks: Marks, answer: Channels, phase: Phase) -> None:
        super().__init__()
        self._marks = marks
        self._answer = answer
        self._answer_delta = ChannelDelta()
        self._over = phase is Phase.OVER
        self.thinks = phase is Phase.BEGUN
        self._closing = Markers(marks.closing)
        self._space = ""  # it may be the last of the reasoning

    def _take_delta(self) -> ChannelDelta:
        delta = super()._take_delta()
        delta.add(self._answer_delta)
        self._answer_delta = ChannelDelta()
        return delta

    def flush(self) -> ChannelDelta:
        delta = super().flush()
        delta.add(self._answer.flush())
        self.called = self._answer.called
        return delta

    def _read(self) -> Reading[None]:
        self._space = yield from self._run(SPACE, limit=None)
        opened = not self._over and (yield from self._literal(self._marks.opening))
        if opened or self.thinks:
            self.thinks, self._space = True, ""
            yield from self._spaces()
            yield from self._until(self._closing, self._think)
            self.thinks, self._space = False, ""
            yield from self._spaces()
        elif self._space:
            self._pass_on(self._space)
        while (yield from self._peek()):
            self._pass_on(self._take(len(self._text) - self._at))

    def _think(self, text: str) -> None:
        text = self._space + text
        kept = text.rstrip()
        self._space = text[len(kept) :]
        self._reasoning_parts.append(kept)

    def _pass_on(self, text: str) -> None:
        self._answer_delta.add(self._answer.push(text))
        self.called = self._answer.called
