"""The engine thread: jobs in from asyncio, steps out to their mailboxes, and nobody else touches the engine."""

import asyncio
import contextlib
import threading
import time

import pytest

from src.engines.base import Job
from src.engines.echo import END_TOKEN, EchoEngine, EchoOptions
from src.errors import EngineDead, EngineError, ModelLoadFailed
from src.runner.engine_loop import EngineLoop, Mailbox
from src.sampling import SamplingParams

OPTIONS = EchoOptions(model_path="", context_length=1000, max_sequences=4)
SLOW = EchoOptions(model_path="", context_length=1000, max_sequences=4, step_delay=0.002)


class Watched(EchoEngine):
    """Notes which threads touch it."""

    threads: set[str]

    def __init__(self, options: EchoOptions) -> None:
        super().__init__(options)
        self.threads = {threading.current_thread().name}

    def __getattribute__(self, name: str) -> object:
        if name in ("add", "cancel", "step", "stats", "close"):
            self.threads.add(threading.current_thread().name)
        return super().__getattribute__(name)


class Mortal(EchoEngine):
    """Dies in its third step."""

    steps = 0

    def step(self) -> list:
        self.steps += 1
        if self.steps == 3:
            raise EngineDead("lost")
        return super().step()


class Particular(EchoEngine):
    """Refuses adapters."""

    def add(self, job: Job) -> None:
        if job.adapter:
            raise EngineError("The model was loaded without it.")
        super().add(job)


@contextlib.asynccontextmanager
async def running(options: EchoOptions = OPTIONS, kind: type[EchoEngine] = EchoEngine, on_death=lambda: None):
    loop = EngineLoop(lambda: kind(options), on_death)
    await loop.start()
    try:
        yield loop
    finally:
        loop.close()


def submit(loop: EngineLoop, text: str = "hello", **fields: object) -> tuple[int, Mailbox]:
    tokens = list(text.encode())
    fields = {"tokens": tokens, "prompt_tokens": len(tokens), "max_tokens": 900, "sampling": SamplingParams(seed=1), **fields}
    mailbox = Mailbox()
    return loop.submit(lambda id: Job(id=id, **fields), mailbox), mailbox


def submit_endless(loop: EngineLoop) -> tuple[int, Mailbox]:
    return submit(loop, sampling=SamplingParams(seed=1, ignore_eos=True))


async def steps_of(mailbox: Mailbox) -> list:
    """All steps of a job, to its last."""
    steps = []
    while not steps or not (steps[-1].finish or steps[-1].error):
        steps += await mailbox.take()
    return steps


async def until(condition, timeout: float = 10) -> None:
    give_up = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.005)


def test_a_job_gets_its_steps_in_order_to_the_last():
    async def main() -> None:
        async with running() as loop:
            _, mailbox = submit(loop, "hello")
            steps = await steps_of(mailbox)
            assert [step.token for step in steps] == [*b"hello", END_TOKEN]
            assert [step.finish for step in steps] == [None] * 5 + ["stop"]
            assert steps[0].cached_tokens == 0

    asyncio.run(main())


def test_steps_that_wait_are_taken_together():
    async def main() -> None:
        async with running() as loop:
            _, mailbox = submit(loop, "hello")
            await until(lambda: loop.stats().generated == 6)
            await asyncio.sleep(0)
            assert len(await mailbox.take()) == 6

    asyncio.run(main())


def test_jobs_run_together_and_each_gets_its_own_steps():
    async def main() -> None:
        async with running() as loop:
            texts = [f"text {number} " * number for number in range(1, 13)]
            jobs = [submit(loop, text) for text in texts]
            assert len({id for id, _ in jobs}) == len(jobs)
            for text, steps in zip(texts, await asyncio.gather(*(steps_of(mailbox) for _, mailbox in jobs)), strict=True):
                assert bytes(step.token for step in steps[:-1]).decode() == text

    asyncio.run(main())


def test_a_cancelled_job_frees_the_engine_and_gets_no_more_steps():
    async def main() -> None:
        async with running(SLOW) as loop:
            id, mailbox = submit_endless(loop)
            await mailbox.take()
            assert loop.stats().running == 1
            loop.cancel(id)
            with contextlib.suppress(asyncio.TimeoutError):  # steps that had been posted before
                while True:
                    await asyncio.wait_for(mailbox.take(), 0.05)
            assert loop.stats().running == 0
            assert loop.stats().generated < 800, "the job ran to its end"
            assert len(await steps_of(submit(loop)[1])) == 6

    asyncio.run(main())


def test_a_job_that_waits_for_a_slot_can_be_cancelled():
    async def main() -> None:
        async with running(SLOW) as loop:
            jobs = [submit_endless(loop) for _ in range(5)]
            await until(lambda: loop.stats().waiting == 1)
            loop.cancel(jobs[4][0])
            await until(lambda: loop.stats().waiting == 0)
            assert loop.stats().running == 4

    asyncio.run(main())


def test_cancelling_twice_or_after_the_end_or_what_never_was_does_nothing():
    async def main() -> None:
        async with running() as loop:
            id, mailbox = submit(loop)
            await steps_of(mailbox)
            for stranger in (id, id, 12345):
                loop.cancel(stranger)
            assert len(await steps_of(submit(loop)[1])) == 6

    asyncio.run(main())


def test_a_job_that_the_engine_refuses_ends_with_its_error_and_others_go_on():
    async def main() -> None:
        async with running(kind=Particular) as loop:
            [refused] = await steps_of(submit(loop, adapter="gone")[1])
            assert isinstance(refused.error, EngineError)
            assert len(await steps_of(submit(loop)[1])) == 6

    asyncio.run(main())


def test_start_raises_what_the_load_raised():
    def fail() -> EchoEngine:
        raise ModelLoadFailed("no such file")

    async def main() -> None:
        with pytest.raises(ModelLoadFailed, match="no such file"):
            await EngineLoop(fail, on_death=lambda: None).start()

    asyncio.run(main())


def test_start_returns_the_engine_for_its_constants():
    async def main() -> None:
        loop = EngineLoop(lambda: EchoEngine(OPTIONS), on_death=lambda: None)
        engine = await loop.start()
        assert (engine.context_length, engine.device) == (1000, "cpu")
        assert loop.stats().slots == 4
        loop.close()

    asyncio.run(main())


def test_only_the_engine_thread_touches_the_engine():
    engines = []

    def load() -> Watched:
        engines.append(Watched(OPTIONS))
        return engines[0]

    async def main() -> None:
        loop = EngineLoop(load, on_death=lambda: None)
        await loop.start()
        id, mailbox = submit_endless(loop)
        await mailbox.take()
        loop.stats()
        loop.cancel(id)
        await steps_of(submit(loop)[1])
        loop.close()

    asyncio.run(main())
    assert engines[0].threads == {"engine"}


def test_a_dead_engine_is_told_once_and_its_thread_ends():
    async def main() -> None:
        crashes = []
        async with running(kind=Mortal, on_death=lambda: crashes.append(threading.current_thread().name)) as loop:
            submit_endless(loop)
            await until(lambda: crashes)
        assert crashes == ["engine"]

    asyncio.run(main())


def test_close_ends_the_thread_even_while_jobs_run():
    async def main() -> None:
        async with running(SLOW) as loop:
            _, mailbox = submit_endless(loop)
            await mailbox.take()

    others = {*threading.enumerate()}  # among them those of servers that other tests share
    asyncio.run(main())
    assert "engine" not in {thread.name for thread in threading.enumerate() if thread not in others}


def test_an_idle_engine_uses_no_processor_time():
    async def main() -> None:
        async with running() as loop:
            await steps_of(submit(loop)[1])
            used = time.process_time()
            await asyncio.sleep(0.3)
            assert time.process_time() - used < 0.1

    asyncio.run(main())


def test_the_rate_counts_tokens_of_the_last_seconds():
    async def main() -> None:
        async with running(SLOW) as loop:
            assert loop.tokens_per_second() == 0
            _, mailbox = submit(loop, "x" * 300)
            await steps_of(mailbox)
            # A token every 2 ms, or fewer on a busy machine.
            assert 0 < loop.tokens_per_second() <= 500

    asyncio.run(main())
