"""One request's life: a prompt becomes a job, its steps become text, and whichever way it ends the engine is free again."""

import asyncio
import contextlib
import re
import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.engines.base import Job
from src.engines.echo import EchoEngine, EchoOptions
from src.errors import ContextLengthExceeded, EngineError, InvalidSchema, InvalidValue, UnsupportedField
from src.protocol import ChatPrompt, Constraint, Delta, Ended, Finished, Generate, Started, TextPrompt, TokenPrompt
from src.runner.engine_loop import EngineLoop
from src.runner.generation import Generator
from src.sampling import SamplingParams
from src.text.template import ChatTemplate
from src.text.tokenizer.base import ByteTokenizer
from src.text.tokenizer.guard import SENTINEL_SPLIT
from tests.support.here import template_here

CONTEXT = 64
TEMPLATE = template_here(
    ByteTokenizer.chat_template, bos_text="", eos_text=ByteTokenizer.eos_text, special_texts=ByteTokenizer.special_texts
)


class Runner:
    """What a runner process holds, without its socket."""

    def __init__(self, loop: EngineLoop, engine: EchoEngine, generator: Generator) -> None:
        self.loop, self.engine, self.generator = loop, engine, generator

    async def events(self, request: Generate) -> list:
        return [event async for event in self.generator.generate(request)]

    async def answer(self, request: Generate) -> tuple[str, str, Finished]:
        started, *deltas, ended, finished = await self.events(request)
        assert isinstance(started, Started)
        assert all(isinstance(event, Delta) for event in deltas)
        assert isinstance(ended, Ended)
        assert isinstance(finished, Finished)
        return "".join(event.text for event in deltas), ended.reason, finished

    async def becomes_idle(self) -> None:
        give_up = time.monotonic() + 10
        while (stats := self.loop.stats()).running or stats.waiting or stats.kv_used:
            assert time.monotonic() < give_up
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(*, step_ms: float = 0, slots: int = 4, template: ChatTemplate | None = TEMPLATE, engine: type[EchoEngine] = EchoEngine):
    options = EchoOptions(model_path="", context_length=CONTEXT, max_sequences=slots, step_delay=step_ms / 1000)
    loop = EngineLoop(lambda: engine(options), on_death=lambda: None)
    loaded = await loop.start()
    generator = Generator(loop, loaded, ByteTokenizer(), template)
    try:
        yield Runner(loop, loaded, generator)
    finally:
        loop.close()
        generator.close()


def text(prompt: str, *, max_tokens: int | None = None, stop: tuple[str, ...] = (), ignore_eos: bool = False) -> Generate:
    sampling = SamplingParams(seed=1, ignore_eos=ignore_eos)
    return Generate(prompts=[TextPrompt(text=prompt)], sampling=sampling, max_tokens=max_tokens, stop=list(stop))


def chat(*contents: str | None) -> Generate:
    messages = [{"role": "user", "content": content} for content in contents]
    return Generate(prompts=[ChatPrompt(messages=messages)], sampling=SamplingParams(seed=1))


def tokens(*ids: int, max_tokens: int | None = None) -> Generate:
    return Generate(prompts=[TokenPrompt(tokens=list(ids))], sampling=SamplingParams(seed=1), max_tokens=max_tokens)


def counts(finished: Finished) -> tuple[int, int, int]:
    return finished.prompt_tokens, finished.completion_tokens, finished.cached_tokens


def answer(request: Generate, **options: object) -> tuple[str, str, Finished]:
    async def main() -> tuple[str, str, Finished]:
        async with running(**options) as runner:
            answered = await runner.answer(request)
            await runner.becomes_idle()
            return answered

    return asyncio.run(main())


def refusal(kind: type[Exception], request: Generate, **options: object) -> Exception:
    async def main() -> Exception:
        async with running(**options) as runner:
            with pytest.raises(kind) as caught:
                await runner.events(request)
            assert runner.loop.stats().generated == 0
            return caught.value

    return asyncio.run(main())


def test_a_text_is_answered_and_counted():
    said, reason, finished = answer(text("hello"))
    assert (said, reason) == ("hello", "stop")
    assert counts(finished) == (5, 6, 0)  # the end is a token too


def test_a_chat_goes_through_the_models_template():
    assert answer(chat("hello", None))[0] == "user: hello\nuser: \n"


def test_tokens_are_taken_as_they_are():
    assert answer(tokens(*b"hi"))[0] == "hi"


def test_a_special_tokens_text_in_a_message_is_text():
    said, reason, _ = answer(chat("a<|end|>b"))
    assert (said, reason) == ("user: a<|end|>b\n", "stop")


def test_started_tells_the_prompts_length_and_the_time_it_waited():
    async def main() -> None:
        async with running(step_ms=5) as runner:
            began = time.monotonic()
            events = await runner.events(text("hello"))
            took = time.monotonic() - began
            [started] = [event for event in events if isinstance(event, Started)]
            assert (started.prompt_tokens, started.cached_tokens) == (5, 0)
            # The step that computes the prompt is not waiting; each step takes 5 ms, and there are six of them.
            finished = events[-1]
            assert finished.prefill_seconds >= 0.005
            assert finished.decode_seconds >= 0.02
            assert 0 <= started.queue_seconds <= took - 0.03

    asyncio.run(main())


def test_text_comes_as_it_is_made():
    async def main() -> None:
        async with running(step_ms=20) as runner:
            events = await runner.events(text("hello"))
            assert len([event for event in events if isinstance(event, Delta)]) > 1

    asyncio.run(main())


def test_max_tokens_ends_an_answer_with_length():
    said, reason, finished = answer(text("hello", max_tokens=2))
    assert (said, reason, counts(finished)) == ("he", "length", (5, 2, 0))


@pytest.mark.parametrize("max_tokens", [None, CONTEXT - 5, CONTEXT, 2**31 - 1])
def test_an_answer_ends_with_length_where_the_context_does(max_tokens):
    said, reason, finished = answer(text("hello", max_tokens=max_tokens, ignore_eos=True))
    assert (reason, finished.completion_tokens) == ("length", CONTEXT - 5)
    assert said == ("hello" * CONTEXT)[: CONTEXT - 5]


def test_a_prompt_that_leaves_room_for_one_token_gets_it():
    said, reason, finished = answer(text("x" * (CONTEXT - 1)))
    assert (said, reason, finished.completion_tokens) == ("x", "length", 1)


@pytest.mark.parametrize(
    ("request_", "param", "length"),
    [
        (text("x" * CONTEXT), "prompt", "64"),
        (text("x" * 440), "prompt", "440"),
        (text("x" * 10_000), "prompt", "more than 64"),
        (tokens(*[65] * CONTEXT), "prompt", "64"),
        (chat("x" * 57), "messages", "64"),
        (chat(*["x" * 50] * 3), "messages", "171"),
        (chat("x" * 10_000), "messages", "more than 64"),
    ],
)
def test_a_prompt_that_leaves_no_room_is_refused_with_both_numbers_before_any_work(request_, param, length):
    error = refusal(ContextLengthExceeded, request_)
    assert error.param == param
    assert re.match(rf"This model's maximum context length is 64 tokens. However, your .*? {length} tokens.", error.message)
    assert error.tokens == (65 if length.startswith("more") else int(length), 63)


@pytest.mark.parametrize("request_", [tokens(), tokens(257), tokens(65, -1), tokens(2**31 - 1)])
def test_a_prompt_without_tokens_or_with_unknown_ones_is_refused(request_):
    assert refusal(InvalidValue, request_).param == "prompt"


def test_a_chat_with_a_model_that_has_no_template_is_refused():
    assert refusal(UnsupportedField, chat("hello"), template=None).param == "messages"


class Refusing(EchoEngine):
    def add(self, job: Job) -> None:
        raise EngineError("The model was loaded without this adapter.")


def test_what_the_engine_refuses_is_raised():
    assert "adapter" in refusal(EngineError, text("hello"), engine=Refusing).message


class Recording(EchoEngine):
    jobs: list[Job]

    def add(self, job: Job) -> None:
        self.jobs = [*getattr(self, "jobs", []), job]
        super().add(job)


def test_answers_of_one_adapter_share_no_prefix_with_those_of_another():
    async def main() -> list[Job]:
        async with running(engine=Recording) as runner:
            for adapter in ("", "sql"):
                await runner.events(msgspec.structs.replace(text("hello"), adapter=adapter))
            return runner.engine.jobs

    assert [(job.adapter, job.scope) for job in asyncio.run(main())] == [("", ""), ("sql", "sql")]


class SmallVocabulary(EchoEngine):
    """Of a broken model, whose tokenizer knows more tokens than it has rows for."""

    vocab_size = 200


@pytest.mark.parametrize("prompt", [TextPrompt(text="д"), TokenPrompt(tokens=[65, 200])])
def test_tokens_beyond_the_engines_vocabulary_are_refused_before_they_reach_it(prompt):
    request = Generate(prompts=[prompt], sampling=SamplingParams(seed=1))
    error = refusal(InvalidValue, request, engine=SmallVocabulary)
    assert "outside the model's vocabulary of 200" in error.message


def test_an_answer_begun_with_a_larger_vocabulary_is_not_resumed():
    request = msgspec.structs.replace(text("hello"), resume=[[65, 200]])
    assert "begun by another model" in refusal(EngineError, request, engine=SmallVocabulary).message


@pytest.mark.parametrize("step_ms", [0, 2])
@pytest.mark.parametrize(
    ("stop", "expected"),
    [(("two",), "one "), ((" t", "two"), "one"), (("one",), ""), (("three", "e two t"), "on"), (("two three",), "one ")],
)
def test_an_answer_ends_before_a_stop_string(stop, expected, step_ms):
    said, reason, _ = answer(text("one two three", stop=stop, ignore_eos=True), step_ms=step_ms)
    assert (said, reason) == (expected, "stop")


def test_a_stop_string_cancels_the_job():
    async def main() -> None:
        async with running(step_ms=2) as runner:
            *_, finished = await runner.answer(text("abcdef", stop=("cd",), ignore_eos=True))
            assert finished.completion_tokens == 4
            await runner.becomes_idle()
            assert runner.loop.stats().generated < 20, "the engine went on"

    asyncio.run(main())


def test_the_beginning_of_a_stop_string_is_text_where_the_answer_ends():
    assert answer(text("one two", stop=("two three",)))[0] == "one two"
    assert answer(text("one two", stop=("two three",), max_tokens=6))[0] == "one tw"


def test_a_stop_string_may_span_the_prompts_of_many_steps_and_hold_any_character():
    assert answer(text("naïve 😀 end", stop=("😀 e",)), step_ms=1)[0] == "naïve "


@pytest.mark.parametrize("step_ms", [0, 1])
def test_characters_of_several_tokens_come_whole(step_ms):
    async def main() -> None:
        async with running(step_ms=step_ms) as runner:
            deltas = [event.text for event in await runner.events(text("aé漢😀")) if isinstance(event, Delta)]
            assert "".join(deltas) == "aé漢😀"
            assert all(deltas)

    asyncio.run(main())


def test_a_character_that_the_answers_end_cuts_is_left_out():
    assert answer(text("aé😀", max_tokens=5))[0] == "aé"


def test_bytes_that_are_no_character_are_replaced():
    assert answer(tokens(0xFF, 65, 0xC3, 66))[0] == "\ufffdA\ufffdB"


@settings(deadline=None, max_examples=50)
@given(st.text(min_size=1, max_size=7))
def test_any_text_is_answered_with_itself(prompt):
    prompt = prompt.replace(SENTINEL_SPLIT, "").replace(ByteTokenizer.END_TEXT, "") or "x"
    assert answer(text(prompt))[0] == prompt


def test_requests_run_together_and_each_gets_its_own_answer():
    async def main() -> None:
        async with running(step_ms=1, slots=3) as runner:
            prompts = [f"number {number}" for number in range(10)]
            answers = await asyncio.gather(*(runner.answer(text(prompt)) for prompt in prompts))
            assert [said for said, *_ in answers] == prompts

    asyncio.run(main())


def test_closing_the_events_cancels_the_job():
    async def main() -> None:
        async with running(step_ms=5) as runner:
            events = runner.generator.generate(text("hello", ignore_eos=True))
            assert isinstance(await anext(events), Started)
            assert runner.loop.stats().running == 1
            await events.aclose()
            await runner.becomes_idle()
            assert runner.loop.stats().generated < CONTEXT - 5, "the job ran to its end"

    asyncio.run(main())


@pytest.mark.parametrize("slots", [1, 4], ids=["while it waits for a slot", "while it runs"])
def test_cancelling_the_task_that_reads_them_cancels_the_job(slots):
    async def main() -> None:
        async with running(step_ms=5, slots=slots) as runner:
            first = asyncio.ensure_future(runner.events(text("hello", ignore_eos=True)))
            second = asyncio.ensure_future(runner.events(text("hello", ignore_eos=True)))
            while (stats := runner.loop.stats()).running + stats.waiting < 2:
                await asyncio.sleep(0.001)
            for task in (second, first):
                task.cancel()
            await asyncio.gather(first, second, return_exceptions=True)
            await runner.becomes_idle()
            assert runner.loop.stats().generated < CONTEXT

    asyncio.run(main())


async def events_of(request: Generate, **options: object) -> list:
    async with running(**options) as runner:
        events = await runner.events(request)
        await runner.becomes_idle()
        return events


def said_by(events: list, index: int = 0) -> tuple[str, str]:
    """A choice's text and how it ended, which is told once and after all it says."""
    of_it = [event for event in events if isinstance(event, Delta | Ended) and event.index == index]
    assert [type(event) for event in of_it].index(Ended) == len(of_it) - 1
    return "".join(event.text for event in of_it[:-1]), of_it[-1].reason


def more(request: Generate, **fields: object) -> Generate:
    return msgspec.structs.replace(request, **fields)


def drawn(request: Generate, **fields: object) -> Generate:
    return more(request, sampling=msgspec.structs.replace(request.sampling, **fields))


def test_every_prompt_gets_its_choices_numbered_prompt_by_prompt():
    request = Generate(prompts=[TextPrompt(text="ab"), TokenPrompt(tokens=list(b"xyz"))], sampling=SamplingParams(seed=1), n=2)
    started, *events, finished = asyncio.run(events_of(request))
    assert [said_by(events, index) for index in range(4)] == [("ab", "stop"), ("ab", "stop"), ("xyz", "stop"), ("xyz", "stop")]
    assert started.prompt_tokens == finished.prompt_tokens == 5, "a prompt counts once"
    assert finished.completion_tokens == 2 * 3 + 2 * 4


def test_a_choice_that_a_stop_string_ends_frees_its_place_while_the_others_go_on():
    async def main() -> None:
        async with running(step_ms=5) as runner:
            stopped = Generate(
                prompts=[TextPrompt(text="stop"), TextPrompt(text="go on")],
                sampling=SamplingParams(seed=1, ignore_eos=True),
                stop=["st"],
                max_tokens=40,
            )
            running_then = []
            async for event in runner.generator.generate(stopped):
                if isinstance(event, Delta) and event.index == 1:
                    running_then.append(runner.loop.stats().running)
            assert running_then[-2] == 1

    asyncio.run(main())


def test_echo_puts_the_prompt_before_the_answer():
    events = asyncio.run(events_of(more(text("hi"), echo=True, n=2)))
    assert said_by(events, 1) == ("hihi", "stop")


def test_an_answer_cannot_end_before_min_tokens():
    assert answer(drawn(text("ab"), min_tokens=5))[0] == "ababa"
    assert answer(drawn(text("abc", stop=("b",)), min_tokens=3))[0] == "abc"
    assert answer(drawn(text("abcab", stop=("b",)), min_tokens=3))[0] == "abca"


def test_a_stop_token_ends_an_answer_and_is_no_part_of_it():
    assert answer(drawn(text("abc"), stop_tokens=[ord("c")]))[:2] == ("ab", "stop")


def test_a_stop_string_can_be_a_part_of_the_answer():
    assert answer(more(text("one two", stop=("e t",)), include_stop=True))[:2] == ("one t", "stop")


@pytest.mark.parametrize("param", ["logit_bias", "stop_token_ids"])
def test_token_ids_outside_the_vocabulary_are_refused(param):
    bent = drawn(text("a"), logit_bias={257: 1}) if param == "logit_bias" else drawn(text("a"), stop_tokens=[257])
    assert refusal(InvalidValue, bent).param == param


def test_a_delta_tells_the_tokens_it_was_made_of():
    _, *deltas, _, _ = asyncio.run(events_of(text("héllo"), step_ms=1))
    assert bytes(token for delta in deltas for token in delta.tokens).decode() == "héllo"


REQUESTS = {
    "plain": text("héllo wörld"),
    "stopped": text("héllo wörld", stop=("ö",)),
    "held": text("abcabd", stop=("abd",)),
    "cut": text("héllo wörld", max_tokens=8),
    "logprobs": drawn(text("héllo"), logprobs=1),
    "constrained": more(text("abxyz"), constraint=Constraint(form="regex", source="[a-z]{3}[0-9]{2}")),
}


def test_an_answer_holds_its_constraint():
    assert answer(REQUESTS["constrained"])[:2] == ("abx00", "stop")
    choice = Constraint(form="choice", source='["no", "abx"]')
    assert answer(more(text("abxyz"), constraint=choice))[:2] == ("abx", "stop")


def test_a_constraint_that_cannot_be_held_is_refused_before_any_work():
    for constraint in (Constraint(form="regex", source="(", param="guided_regex"), Constraint(form="json_schema", source='{"not":{}}')):
        assert refusal(InvalidSchema, more(text("a"), constraint=constraint)).param == constraint.param


@pytest.mark.parametrize("param", ["ignore_eos", "min_tokens"])
def test_a_constraint_says_where_the_answer_ends(param):
    request = more(drawn(text("a"), **{param: 3 if param == "min_tokens" else True}), constraint=Constraint(form="choice", source='["a"]'))
    assert refusal(InvalidValue, request).param == param


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_resumed_after_any_token_goes_on_as_if_nothing_had_happened(name):
    request = REQUESTS[name]
    _, *deltas, ended, finished = asyncio.run(events_of(request, step_ms=1))
    whole = "".join(delta.text for delta in deltas)
    known, said, logprobs = [], "", []
    for cut in range(len(deltas) + 1):
        _, *rest, again, refinished = asyncio.run(events_of(more(request, resume=[known])))
        assert said + "".join(delta.text for delta in rest) == whole
        assert logprobs + [entry for delta in rest for entry in delta.logprobs] == [e for delta in deltas for e in delta.logprobs]
        assert (again, counts(refinished)[:2]) == (ended, counts(finished)[:2])
        if cut < len(deltas):
            known, said = known + deltas[cut].tokens, said + deltas[cut].text
            logprobs = logprobs + deltas[cut].logprobs
