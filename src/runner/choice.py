"""One answer as it is written: steps in, deltas out. Knows no engine, no socket, and nothing of the other choices."""

import secrets
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from src.engines.base import Logprobs, Step
from src.protocol import Delta, Ended, Generate, TokenLogprob, ToolCallDelta
from src.text.output.channels import ChannelDelta, Channels
from src.text.output.decode import StopMachine, Utf8Decoder
from src.text.tokenizer.base import Tokenizer

NOTHING: Mapping[int, bytes] = MappingProxyType({})
LOWEST = -9999.0  # JSON knows no -inf; OpenAI's own stand-in


class Choice:
    """token -> bytes -> text -> channels -> stops in the content. `finish` is set once the last step or a stop string is there."""

    def __init__(
        self, index: int, request: Generate, tokenizer: Tokenizer, channels: Channels, shown: Mapping[int, bytes] = NOTHING
    ) -> None:
        """`shown`: control tokens that the channels have to see, as the bytes of their text."""
        self.index = index
        self.finish: str | None = None
        self.completion_tokens = self.reasoning_tokens = 0
        self._tokenizer = tokenizer
        self._channels = channels
        self._shown = shown
        self._decoder, self._stops = Utf8Decoder(), StopMachine(request.stop, included=request.include_stop)
        self._min_tokens = request.sampling.min_tokens
        self._said = ChannelDelta()
        self._unsent: list[int] = []
        self._logprobs = _LogprobQueue()
        self._ready: list[TokenLogprob] = []

    def replay(self, tokens: list[int]) -> None:
        """Take in tokens whose text was sent already."""
        for token in tokens:
            if self.finish is None:
                self.push(Step(job_id=0, token=token))
        self._said, self._unsent, self._ready = ChannelDelta(), [], []

    def push(self, step: Step) -> None:
        if step.token is None:
            return
        self.completion_tokens += 1
        # A token that ends the answer is no part of it, and a resumed job is to draw it again.
        ends = step.finish == "stop"
        text = self._decoder.push(b"" if ends else self._tokenizer.bytes_of(step.token) or self._shown.get(step.token, b""))
        if not ends:
            self._unsent.append(step.token)
            self._logprobs.push(self._named(step.token, step.logprobs) if step.logprobs else None, len(text))
        thought = self._channels.thinks
        said = self._channels.push(text) if text else ChannelDelta()
        said.content = self._checked(said.content)
        if step.finish and not self._stops.stopped:
            rest = self._channels.flush()
            rest.content = self._checked(rest.content)
            said.add(rest)
        self.finish = "stop" if self._stops.stopped else step.finish
        if self.finish:
            said.content += self._stops.flush()
        self._said.add(said)
        self.reasoning_tokens += thought or bool(said.reasoning)
        self._ready += self._logprobs.said(self._stops.unsaid, at_end=self.finish is not None and not self._stops.stopped)

    def _checked(self, content: str) -> str:
        """As far as no stop string can begin in it. What a model thinks, and what it calls, no stop string ends."""
        return self._stops.push(content) if self.completion_tokens > self._min_tokens else content

    def take(self) -> Delta | None:
        """What can be said since the last time; None where that is nothing.

        It waits for a token whose logprob is held back, for the tokens told are those that need not be drawn again."""
        if self._logprobs.holds and self.finish is None:
            return None
        said, self._said = self._said, ChannelDelta()
        if not (said.content or said.reasoning or said.calls or self._ready):
            return None
        tokens, self._unsent = self._unsent, []
        logprobs, self._ready = self._ready, []
        return Delta(
            index=self.index,
            text=said.content,
            reasoning=said.reasoning,
            tool_calls=[
                ToolCallDelta(index=call.index, id=_new_id() if call.name else None, name=call.name, arguments=call.arguments)
                for call in said.calls
            ],
            logprobs=logprobs,
            tokens=tokens,
            last=self.finish is not None,
        )

    @property
    def ended(self) -> Ended:
        return Ended(index=self.index, reason=self.reason, stop=self._stops.found)

    @property
    def reason(self) -> str:
        """OpenAI's finish_reason."""
        assert self.finish
        return "tool_calls" if self._channels.called and self.finish == "stop" else self.finish

    def _named(self, token: int, logprobs: Logprobs) -> TokenLogprob:
        top = [self._entry(id, logprob) for id, logprob in logprobs.top]
        return msgspec.structs.replace(self._entry(token, logprobs.drawn), top=top, offset=self._logprobs.decoded)

    def _entry(self, token: int, logprob: float) -> TokenLogprob:
        name = self._tokenizer.display_bytes(token)
        return TokenLogprob(token=name.decode(errors="replace"), logprob=max(logprob, LOWEST), bytes=list(name))


def _new_id() -> str:
    return f"call_{secrets.token_hex(12)}"


class _LogprobQueue:
    """Holds a token's entry back as long as the text that it is a part of: one that a stop string cut off is never sent."""

    def __init__(self) -> None:
        self._entries: deque[TokenLogprob] = deque()
        self.decoded = 0  # characters

    @property
    def holds(self) -> bool:
        return bool(self._entries)

    def push(self, entry: TokenLogprob | None, characters: int) -> None:
        """A token that completed so many characters; none where it ends inside of one."""
        if entry:
            self._entries.append(entry)
        self.decoded += characters

    def said(self, unsaid: int, *, at_end: bool) -> list[TokenLogprob]:
        """The entries of the text said now, which is all but so many characters, in order; at the end all that are left."""
        ready = []
        while self._entries and (at_end or self._entries[0].offset < self.decoded - unsaid):
            ready.append(self._entries.popleft())
        return ready
