"""Jobs of a key that holds the batch make way for another's, and say all they would have said undisturbed."""

import asyncio
import contextlib

import pytest

from src.engines import engine_options, load_engine
from src.engines.base import Job, Step
from src.engines.echo import EchoEngine, EchoOptions
from src.errors import EngineError
from src.protocol import ChatPrompt, Constraint, Delta, Ended, Finished, Generate, Started, TextPrompt
from src.runner import preemption
from src.runner.engine_loop import EngineLoop, Mailbox
from src.runner.generation import Generator
from src.runner.preemption import LEAST_STEPS, PATIENCE, Preemption
from src.sampling import SamplingParams
from src.text.tokenizer.base import ByteTokenizer
from tests.support.here import template_here

SLOTS = 4
OPTIONS = EchoOptions(model_path="", context_length=1000, max_sequences=SLOTS, step_delay=0.001)
LONG = "She said: {x} and went home. " * 3


class Clock:
    """Seconds as the module sees them."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(preemption, "time", clock := Clock())
    return clock


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(preemption, "PATIENCE", 0.0)
    monkeypatch.setattr(preemption, "PAUSE", 0.0)


def job(id: int, key: str, **fields: object) -> Job:
    return Job(id=id, tokens=[1, 2], prompt_tokens=2, max_tokens=100, sampling=SamplingParams(seed=id), key=key, **fields)


class Engine:
    """What the module knows of one."""

    def __init__(self, clock: Clock) -> None:
        self.preemption, self._clock = Preemption(), clock
        self.running: list[int] = []

    def add(self, id: int, key: str, *, runs: bool = False) -> None:
        self.preemption.add(job(id, key))
        if runs:
            self.running.append(id)

    def step(self, number: int = 1) -> None:
        for _ in range(number):
            self.preemption.observe([Step(job_id=id, token=7, cached_tokens=0) for id in self.running])

    def exchange_after(self, seconds: float) -> tuple[int, Job] | None:
        self._clock.now += seconds
        exchange = self.preemption.exchange()
        if exchange:
            self.running.remove(exchange.cancelled)
        return exchange


@pytest.fixture
def engine(clock):
    """Four jobs of a run, and have for a while."""
    engine = Engine(clock)
    for id in (1, 2, 3, 4):
        engine.add(id, "a", runs=True)
    engine.step(LEAST_STEPS)
    return engine


def test_the_youngest_job_is_set_aside_behind_its_tokens(engine):
    engine.add(9, "b")
    assert engine.exchange_after(PATIENCE / 2) is None, "it has not waited for long"
    cancelled, added = engine.exchange_after(PATIENCE)
    assert cancelled == 4
    assert (added.tokens, added.prompt_tokens, added.max_tokens) == ([1, 2] + [7] * LEAST_STEPS, 2, 100 - LEAST_STEPS)
    assert added.set_aside
    assert added.id not in (1, 2, 3, 4, 9)
    assert engine.preemption.count == 1


class Rules:
    """A grammar that is behind these tokens."""

    source = ""

    def __init__(self, completion: list[int]) -> None:
        self.completion = completion

    def behind(self, completion: list[int]) -> "Rules":
        if self.completion == [0]:
            raise EngineError("It cannot be followed anew.")
        return Rules(completion)


def test_its_grammar_goes_on_behind_what_it_has_drawn_wherever_the_engine_has_got_to(engine):
    engine.preemption.cancel(4)
    resumed = Job(id=5, tokens=[1, 2, 3], prompt_tokens=2, max_tokens=100, sampling=SamplingParams(seed=1), key="a", grammar=Rules([3]))
    engine.preemption.add(resumed)
    engine.running = [1, 2, 3, 5]
    engine.step(LEAST_STEPS)
    engine.add(9, "b")
    assert engine.exchange_after(PATIENCE)[1].grammar.completion == [3] + [7] * LEAST_STEPS


def test_a_job_whose_grammar_cannot_be_followed_anew_runs_on(engine):
    engine.preemption.cancel(4)
    engine.preemption.add(job(4, "a", grammar=Rules([0])))
    engine.step(LEAST_STEPS)
    engine.add(9, "b")
    assert engine.exchange_after(PATIENCE) is None
    assert engine.preemption.count == 0


def test_its_further_steps_are_those_of_the_job_it_was(engine):
    engine.add(9, "b")
    _, added = engine.exchange_after(PATIENCE)
    assert engine.preemption.observe([Step(job_id=4, token=5)]) == [], "the engine was at it still"
    assert engine.preemption.observe([Step(job_id=added.id, token=5, cached_tokens=2)]) == [Step(job_id=4, token=5)]
    assert engine.preemption.cancel(4) == added.id
    assert engine.preemption.observe([Step(job_id=added.id, token=5)]) == []


def test_nobody_is_set_aside_for_a_job_of_the_same_key_or_of_one_that_runs_nearly_as_many(engine):
    engine.add(8, "a")
    for id in (10, 11, 12):
        engine.add(id, "b", runs=True)
    engine.step(LEAST_STEPS)
    engine.add(9, "b")
    assert engine.exchange_after(10 * PATIENCE) is None
    engine.preemption.cancel(12)
    assert engine.exchange_after(PATIENCE) is not None


def test_a_job_gets_on_before_it_is_set_aside(clock):
    engine = Engine(clock)
    for id in (1, 2):
        engine.add(id, "a", runs=True)
    engine.step(LEAST_STEPS - 1)
    engine.add(9, "b")
    assert engine.exchange_after(PATIENCE) is None
    engine.step()
    assert engine.exchange_after(PATIENCE) is not None


def test_who_still_waits_has_twice_the_patience(engine):
    engine.add(9, "b")
    assert engine.exchange_after(PATIENCE)
    assert engine.exchange_after(PATIENCE) is None
    assert engine.exchange_after(PATIENCE)


def test_a_job_that_has_ended_is_forgotten(engine):
    engine.preemption.observe([Step(job_id=4, token=7, finish="stop")])
    engine.add(9, "b")
    assert engine.exchange_after(PATIENCE)[0] == 3


WITHOUT_TOOLS = "{{ messages[-1].content.partition('CUT')[2] }}"  # what is said of tools comes before


class Runner:
    def __init__(self, loop: EngineLoop, generator: Generator) -> None:
        self.loop, self.generator = loop, generator

    async def events(self, request: Generate) -> list:
        return [event async for event in self.generator.generate(request)]


@contextlib.asynccontextmanager
async def running(kind: type[EchoEngine] = EchoEngine):
    template = template_here(WITHOUT_TOOLS, bos_text="", eos_text="", special_texts=ByteTokenizer.special_texts)
    loop = EngineLoop(lambda: kind(OPTIONS), on_death=lambda: None)
    generator = Generator(loop, await loop.start(), ByteTokenizer(), template, tool_format="hermes")
    try:
        yield Runner(loop, generator)
    finally:
        loop.close()
        generator.close()


def said(events: list, index: int) -> tuple:
    """All that a client is told of a choice, however it was cut into deltas."""
    deltas = [event for event in events if isinstance(event, Delta) and event.index == index]
    calls = [(call.index, call.name) for delta in deltas for call in delta.tool_calls if call.name]
    return (
        "".join(delta.text for delta in deltas),
        [token for delta in deltas for token in delta.tokens],
        [entry for delta in deltas for entry in delta.logprobs],
        calls,
        "".join(call.arguments for delta in deltas for call in delta.tool_calls),
        [event for event in events if isinstance(event, Ended) and event.index == index],
    )


def usage(events: list) -> list:
    finished = events[-1]
    assert isinstance(finished, Finished)
    return [finished.prompt_tokens, finished.completion_tokens, finished.cached_tokens]


def text(prompt: str = LONG, *, key: str = "greedy", n: int = SLOTS, **fields: object) -> Generate:
    sampling = {"seed": 1, **fields.pop("sampling", {})}
    return Generate(prompts=[TextPrompt(text=prompt)], sampling=SamplingParams(**sampling), n=n, key=key, **fields)


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "string"}}}}}
CALL = '<tool_call>\n{"name": "f", "arguments": {"x": "' + "ab" * 25 + '"}}\n</tool_call>'
REQUESTS = {
    "endless": text(sampling={"ignore_eos": True}, max_tokens=150),
    "greedy": text(sampling={"temperature": 0, "min_tokens": 100}),
    "logprobs": text(sampling={"logprobs": 2}),
    "a stop string": text(LONG + "END and more", stop=["END"]),
    "a bound": text(max_tokens=70),
    "penalties": text(sampling={"presence_penalty": 0.5, "repetition_penalty": 1.1, "logit_bias": {ord("x"): -60.0}}),
    "a grammar": text("abc" * 20 + "1", constraint=Constraint(form="regex", source="(abc)+[0-9]{2}")),
    "tools": Generate(
        prompts=[ChatPrompt(messages=[{"role": "user", "content": f"CUT{CALL}"}], tools=[TOOL], must_call=True)],
        sampling=SamplingParams(seed=1, temperature=0),
        n=SLOTS,
        key="greedy",
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_an_answer_that_was_set_aside_is_the_same(name, impatient):
    async def main() -> None:
        async with running() as runner:
            undisturbed = await runner.events(REQUESTS[name])
            assert runner.loop.preempted() == 0
            for _ in range(20):  # it may be through before the other's first request is seen
                disturbed = asyncio.ensure_future(runner.events(REQUESTS[name]))
                while not runner.loop.preempted() and runner.loop.stats().running < SLOTS and not disturbed.done():
                    await asyncio.sleep(0)  # a place would be kept for one that asks before
                while not disturbed.done():
                    await asyncio.wait([disturbed], timeout=0.005)
                    await runner.events(text("hi", key="modest", n=1))
                if runner.loop.preempted():
                    break
            assert runner.loop.preempted() >= 1
            assert [said(disturbed.result(), index) for index in range(SLOTS)] == [said(undisturbed, index) for index in range(SLOTS)]
            assert usage(disturbed.result()) == usage(undisturbed)
            assert sum(isinstance(event, Started) for event in disturbed.result()) == 1

    asyncio.run(main())


def test_a_key_that_waits_is_begun_long_before_the_jobs_of_another_end(monkeypatch):
    monkeypatch.setattr(preemption, "PATIENCE", 0.01)

    async def main() -> None:
        async with running() as runner:
            greedy = asyncio.ensure_future(runner.events(text(sampling={"ignore_eos": True}, n=3 * SLOTS, max_tokens=200)))
            while runner.loop.stats().waiting < 2 * SLOTS:
                await asyncio.sleep(0.001)
            before = runner.loop.stats().generated
            await runner.events(text("hi", key="modest", n=1))
            assert runner.loop.stats().generated - before < SLOTS * 200 / 2
            assert not greedy.done()
            greedy.cancel()

    asyncio.run(main())


class Forgetful(EchoEngine):
    resumes = False


@pytest.mark.parametrize("key", ["greedy", "modest"])
def test_nobody_is_set_aside_where_that_helps_nobody(key, impatient):
    """Not for the same key, nor in an engine that could not go on with the same tokens."""

    async def main() -> None:
        async with running(EchoEngine if key == "greedy" else Forgetful) as runner:
            greedy = asyncio.ensure_future(runner.events(text()))
            while runner.loop.stats().running < SLOTS:
                await asyncio.sleep(0.001)
            await asyncio.gather(greedy, runner.events(text(key=key)))
            assert runner.loop.preempted() == 0

    asyncio.run(main())


async def greedy_tokens(loop: EngineLoop, key: str, prompt: list[int], count: int, drawn: list[int]) -> None:
    mailbox = Mailbox()
    fields = {"tokens": prompt, "prompt_tokens": len(prompt), "max_tokens": count, "key": key}
    sampling = SamplingParams(seed=1, temperature=0, ignore_eos=True)
    loop.submit(lambda id: Job(id=id, sampling=sampling, **fields), mailbox)
    while len(drawn) < count:
        drawn += [step.token for step in await mailbox.take() if step.token is not None]


@pytest.mark.slow
def test_a_real_models_jobs_go_on_as_undisturbed(model_path, monkeypatch):
    """Up to near ties: what is computed anew in another batch differs by a little."""
    from tests.support.llamacpp_greedy import TOLERANCE, GreedyReference

    monkeypatch.setattr(preemption, "PATIENCE", 0.05)
    fields = {"context_length": 256, "max_sequences": SLOTS, "cached_prefixes": 2, "threads": 1}
    fields |= {"model_path": str(model_path), "device": "cpu"}
    prompts = [[start + (index * 7) % 60 for index in range(12)] for start in range(40, 40 + SLOTS)]

    async def run(*, disturbed: bool) -> list[list[int]]:
        loop = EngineLoop(lambda: load_engine("llama_cpp", engine_options("llama_cpp", fields)), on_death=lambda: None)
        await loop.start()
        drawn: list[list[int]] = [[] for _ in prompts]
        greedy = [
            asyncio.ensure_future(greedy_tokens(loop, "greedy", prompt, 200, tokens)) for prompt, tokens in zip(prompts, drawn, strict=True)
        ]
        if disturbed:
            while any(len(tokens) < LEAST_STEPS for tokens in drawn):
                await asyncio.sleep(0.01)
            await greedy_tokens(loop, "modest", prompts[0][:5], 5, [])
            assert not any(task.done() for task in greedy)
            assert loop.preempted() >= 1
        await asyncio.gather(*greedy)
        loop.close()
        return drawn

    undisturbed, disturbed = (asyncio.run(run(disturbed=each)) for each in (False, True))
    reference = GreedyReference(model_path, 256)
    for prompt, one, other in zip(prompts, undisturbed, disturbed, strict=True):
        # Where the end token would have been likelier, both fall short of what the model alone draws.
        assert one == other or reference.shortfall(prompt, other) <= reference.shortfall(prompt, one) + TOLERANCE
