"""An answer cut at every one of its events and gone on with by another runner is the answer of one runner."""

import asyncio
import contextlib
from collections import defaultdict

import pytest
from msgspec.structs import replace

from src.api.generation.progress import Progress
from src.engines.base import Logprobs, Step
from src.engines.echo import EchoEngine, EchoOptions
from src.protocol import Delta, Ended, Finished, Generate, Quarantined, Started, TextPrompt
from src.runner.choice import Choice
from src.runner.engine_loop import EngineLoop
from src.runner.generation import Generator
from src.sampling import SamplingParams
from src.text.output.channels import ChannelDelta, PlainText
from src.text.tokenizer.base import ByteTokenizer
from tests.runner import test_tool_calls as tools

OPTIONS = EchoOptions(model_path="", context_length=256, max_sequences=20, step_delay=0.001)


@contextlib.asynccontextmanager
async def runner():
    loop = EngineLoop(lambda: EchoEngine(OPTIONS), on_death=lambda: None)
    engine = await loop.start()
    try:
        yield Generator(loop, engine, ByteTokenizer(), None)
    finally:
        loop.close()


async def events_of(generator: Generator, request: Generate) -> list:
    return [event async for event in generator.generate(request) if not isinstance(event, Quarantined)]


def told(events: list) -> dict:
    """What a client gets to know, however it was cut into events."""
    texts, logprobs, reasons = defaultdict(str), defaultdict(list), {}
    for event in events:
        if isinstance(event, Delta):
            texts[event.index] += event.text
            logprobs[event.index] += [(entry.token, entry.logprob) for entry in event.logprobs]
        elif isinstance(event, Ended):
            assert event.index not in reasons, "it ended twice"
            reasons[event.index] = event.reason
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert sum(isinstance(event, Started) for event in events) == 1
    counts = (events[-1].prompt_tokens, events[-1].completion_tokens, events[-1].cached_tokens)
    return {"texts": dict(texts), "logprobs": dict(logprobs), "reasons": reasons, "counts": counts}


def asked(*prompts: str, logprobs: int | None = None, ignore_eos: bool = False, **fields) -> Generate:
    sampling = SamplingParams(seed=1, logprobs=logprobs, ignore_eos=ignore_eos)
    return Generate(prompts=[TextPrompt(text=text) for text in prompts], sampling=sampling, **fields)


REQUESTS = {
    "plain": asked("hello"),
    "two choices of two prompts": asked("hello", "hi", n=2),
    "characters of several bytes": asked("käse 日本語 🎈!"),
    "a stop string in the middle": asked("abcxabxyzabc", stop=["xyz"]),
    "what could have become a stop string": asked("hello xy", stop=["xyz"]),
    "a stop string that nearly comes": asked("abxabxabxy", stop=["xyz", "bxabz"]),
    "logprobs": asked("hello", logprobs=1),
    "logprobs and a stop string": asked("abxyabxyzabc", logprobs=0, stop=["xyz"]),
    "logprobs and what could have become one": asked("ab日本xy", logprobs=0, stop=["xyz"]),
    "cut off by its length": asked("hello", max_tokens=7, ignore_eos=True),
    "the prompt comes first": asked("hello", "hi", n=2, echo=True),
    "a stop string within another": asked("xyxyxy", stop=["xyx"]),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_it_may_be_cut_at_every_event(name):
    request = REQUESTS[name]

    async def main() -> None:
        async with runner() as first, runner() as second:
            events = await events_of(first, request)
            whole = told(events)
            for cut in range(len(events)):
                progress = Progress(request)
                joined = [new for event in events[:cut] for new in progress.push(event)]
                rest = await events_of(second, progress.resume_request())
                joined += [new for event in rest for new in progress.push(event)]
                assert told(joined) == whole, f"cut behind {events[:cut]}"

    asyncio.run(main())


def test_it_may_be_cut_many_times_and_never_draws_more_than_is_missing():
    request = asked("abcdefgh", "xyz", n=2, logprobs=1)

    async def main() -> None:
        async with runner() as generator:
            whole = told(await events_of(generator, request))
            progress, joined, asking = Progress(request), [], request
            for keep in range(1, 12):
                rest = (await events_of(generator, asking))[:keep]
                joined += [new for event in rest for new in progress.push(event)]
                asking = progress.resume_request()
            joined += [new for event in await events_of(generator, asking) for new in progress.push(event)]
            assert told(joined) == whole

    asyncio.run(main())


def test_a_request_of_which_nothing_is_known_is_asked_as_it_was():
    request = asked("hello", echo=True)
    progress = Progress(request)
    assert progress.resume_request() == request
    progress.push(Started(prompt_tokens=5, cached_tokens=0, queue_seconds=0))
    progress.push(Delta(text="hello"))
    assert progress.resume_request() == request, "its own echo counts for nothing"
    progress.push(Delta(text="h", tokens=[104]))
    assert progress.resume_request() == replace(request, resume=[[104]])


class Secretive(PlainText):
    """Keeps all to itself until the end, as a tool call's text may be."""

    def __init__(self) -> None:
        self._kept = ""

    def push(self, text: str) -> ChannelDelta:
        self._kept += text
        return ChannelDelta()

    def flush(self) -> ChannelDelta:
        return ChannelDelta(content=self._kept)


def test_tokens_that_are_known_are_not_told_again_though_none_of_their_text_was_said():
    choice = Choice(0, asked("x", logprobs=0), ByteTokenizer(), Secretive())
    choice.push(Step(job_id=1, token=ord("a"), logprobs=Logprobs(0.0, [])))
    first = choice.take()
    assert (first.tokens, first.text, len(first.logprobs)) == ([ord("a")], "", 1)
    resumed = Choice(0, asked("x", logprobs=0), ByteTokenizer(), Secretive())
    resumed.replay(first.tokens)
    resumed.push(Step(job_id=1, token=ord("b"), logprobs=Logprobs(0.0, []), finish="length"))
    rest = resumed.take()
    assert (rest.tokens, rest.text, len(rest.logprobs)) == ([ord("b")], "ab", 1)


def test_tool_calls_with_logprobs_may_be_cut_at_every_event():
    question = tools.request(f"CUTSo:\n{tools.CALL}\nDone.")
    question = replace(question, sampling=replace(question.sampling, logprobs=0))
    template = tools.WITHOUT_TOOLS
    [whole] = tools.run(question, template=template)
    progresses, joined = [], []
    for cut in range(len(whole)):
        progresses.append(progress := Progress(question))
        joined.append([new for event in whole[:cut] for new in progress.push(event)])
    rests = tools.run(*(progress.resume_request() for progress in progresses), template=template)
    for progress, first, rest in zip(progresses, joined, rests, strict=True):
        answer = first + [new for event in rest for new in progress.push(event)]
        assert told(answer) == told(whole)
        assert tools.told_pieces(answer) == tools.told_pieces(whole)
