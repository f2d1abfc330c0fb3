"""After a death requests are tried one after another: at any time one at most can be to blame for the next."""

import asyncio

from src.runner.quarantine import PROOF, Quarantine


def run(main) -> None:
    asyncio.run(asyncio.wait_for(main, 10))


def test_requests_that_no_runner_died_under_pass_at_once():
    async def main() -> None:
        quarantine = Quarantine()
        trials = [await quarantine.enter(0) for _ in range(3)]
        assert not any(trial.open for trial in trials)
        assert not trials[0].count(10**6)

    run(main())


def test_a_trial_ends_after_some_tokens_and_the_next_begins():
    async def main() -> None:
        quarantine = Quarantine()
        first = await quarantine.enter(1)
        second = asyncio.create_task(quarantine.enter(1))
        assert not first.count(PROOF - 1)
        await asyncio.sleep(0)
        assert first.open
        assert not second.done()
        assert first.count(1)
        assert not first.open
        assert (await second).open

    run(main())


def test_each_further_death_makes_a_trial_four_times_as_long():
    async def main() -> None:
        trial = await Quarantine().enter(3)
        assert not trial.count(PROOF**3 - 1)
        assert trial.count(1)

    run(main())


def test_who_comes_during_a_trial_is_tried_too_and_who_comes_after_all_of_them_is_not():
    async def main() -> None:
        quarantine = Quarantine()
        suspect = await quarantine.enter(1)
        newcomer = asyncio.create_task(quarantine.enter(0))
        await asyncio.sleep(0)
        assert not newcomer.done()
        suspect.close()
        suspect.close()
        tried = await newcomer
        assert tried.open
        tried.close()
        assert not (await quarantine.enter(0)).open

    run(main())


def test_who_leaves_while_waiting_is_waited_for_by_nobody():
    async def main() -> None:
        quarantine = Quarantine()
        first = await quarantine.enter(1)
        gone = asyncio.create_task(quarantine.enter(1))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        first.close()
        assert not (await quarantine.enter(0)).open

    run(main())
