"""After a death requests are tried one after another: at any time one at most can be to blame for the next."""

import asyncio

from src.runner.turnstile import PROOF, Turnstile


def run(main) -> None:
    asyncio.run(asyncio.wait_for(main, 10))


def test_requests_that_no_runner_died_under_pass_at_once():
    async def main() -> None:
        turnstile = Turnstile()
        trials = [await turnstile.enter(0) for _ in range(3)]
        assert not any(trial.open for trial in trials)
        assert not trials[0].drew(10**6)

    run(main())


def test_a_trial_ends_after_some_tokens_and_the_next_begins():
    async def main() -> None:
        turnstile = Turnstile()
        first = await turnstile.enter(1)
        second = asyncio.create_task(turnstile.enter(1))
        assert not first.drew(PROOF - 1)
        await asyncio.sleep(0)
        assert first.open
        assert not second.done()
        assert first.drew(1)
        assert not first.open
        assert (await second).open

    run(main())


def test_each_further_death_makes_a_trial_four_times_as_long():
    async def main() -> None:
        trial = await Turnstile().enter(3)
        assert not trial.drew(PROOF**3 - 1)
        assert trial.drew(1)

    run(main())


def test_who_comes_during_a_trial_is_tried_too_and_who_comes_after_all_of_them_is_not():
    async def main() -> None:
        turnstile = Turnstile()
        suspect = await turnstile.enter(1)
        newcomer = asyncio.create_task(turnstile.enter(0))
        await asyncio.sleep(0)
        assert not newcomer.done()
        suspect.end()
        suspect.end()
        tried = await newcomer
        assert tried.open
        tried.end()
        assert not (await turnstile.enter(0)).open

    run(main())


def test_who_leaves_while_waiting_is_waited_for_by_nobody():
    async def main() -> None:
        turnstile = Turnstile()
        first = await turnstile.enter(1)
        gone = asyncio.create_task(turnstile.enter(1))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        first.end()
        assert not (await turnstile.enter(0)).open

    run(main())
