"""What nobody reads has a bound: its jobs are set aside, others go on, and whoever reads again gets the same tokens."""

import asyncio
import contextlib

import pytest

from src.engines.base import Job, Logprobs, Step
from src.engines.echo import EchoEngine, EchoOptions
from src.runner import engine_loop
from src.runner.engine_loop import EngineLoop, Mailbox
from src.sampling import SamplingParams

UNREAD, TOGETHER = 200, 20
PROMPT, LENGTH = [7, 8, 9], 600
OPTIONS = EchoOptions(model_path="", context_length=1000, max_sequences=2, step_delay=0.001)


class Forgetful(EchoEngine):
    resumes = False


@contextlib.asynccontextmanager
async def running(kind: type[EchoEngine] = EchoEngine):
    loop = EngineLoop(lambda: kind(OPTIONS), on_death=lambda: None)
    await loop.start()
    try:
        yield loop
    finally:
        loop.close()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(engine_loop, "UNREAD", UNREAD)
    monkeypatch.setattr(engine_loop, "TOGETHER", TOGETHER)


def submit(loop: EngineLoop, mailbox: Mailbox) -> int:
    sampling = SamplingParams(seed=1, ignore_eos=True)
    fields = {"tokens": PROMPT, "prompt_tokens": len(PROMPT), "max_tokens": LENGTH, "sampling": sampling}
    return loop.submit(lambda id: Job(id=id, **fields), mailbox)


async def idle(loop: EngineLoop) -> None:
    while loop.step_age() or loop.stats().running or not loop.stats().generated:
        await asyncio.sleep(0.001)


async def tokens_of(mailbox: Mailbox, jobs: set[int]) -> dict[int, list[int]]:
    drawn: dict[int, list[int]] = {job: [] for job in jobs}
    while jobs:
        steps = await mailbox.take()
        assert len(steps) <= TOGETHER, "they become one message"
        for step in steps:
            drawn[step.job_id].append(step.token)
            jobs = jobs - {step.job_id} if step.finish else jobs
    return drawn


def test_jobs_whose_steps_nobody_reads_make_room_and_go_on_with_the_same_tokens():
    async def main() -> None:
        async with running() as loop:
            unread, read = Mailbox(), Mailbox()
            jobs = {submit(loop, unread) for _ in range(2)}
            await idle(loop)
            assert UNREAD <= loop.stats().generated < 2 * LENGTH
            other = submit(loop, read)
            assert await tokens_of(read, {other}) == {other: PROMPT * (LENGTH // 3)}
            assert await tokens_of(unread, jobs) == dict.fromkeys(jobs, PROMPT * (LENGTH // 3))

    asyncio.run(asyncio.wait_for(main(), 60))


def test_logprobs_count_by_their_number():
    mailbox, step = Mailbox(), Step(job_id=1, token=7, logprobs=Logprobs(0.0, [(7, 0.0)] * 8))
    for _ in range(UNREAD // 10 - 1):
        mailbox.put(step, 0.0)
    assert not mailbox.is_full
    mailbox.put(step, 0.0)
    assert mailbox.is_full


def test_one_that_is_cancelled_meanwhile_is_forgotten():
    async def main() -> None:
        async with running() as loop:
            mailbox = Mailbox()
            job = submit(loop, mailbox)
            await idle(loop)
            generated = loop.stats().generated
            loop.cancel(job)
            for _ in range(UNREAD // TOGETHER):
                await mailbox.take()
            other = submit(loop, other_mailbox := Mailbox())
            await tokens_of(other_mailbox, {other})
            assert loop.stats().generated == generated + LENGTH

    asyncio.run(asyncio.wait_for(main(), 60))


def test_where_jobs_cannot_be_resumed_they_run_to_their_end():
    async def main() -> None:
        async with running(Forgetful) as loop:
            mailbox = Mailbox()
            job = submit(loop, mailbox)
            await idle(loop)
            assert loop.stats().generated == LENGTH
            assert await tokens_of(mailbox, {job}) == {job: PROMPT * (LENGTH // 3)}

    asyncio.run(asyncio.wait_for(main(), 60))
