"""Threads that keys share: nobody's work waits for all of another's."""

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from src.runner.turns import Turns


class Gate:
    """Work that takes until it is opened."""

    def __init__(self) -> None:
        self.begun, self._opened = threading.Event(), threading.Event()

    def open(self) -> None:
        self._opened.set()

    def __call__(self) -> None:
        self.begun.set()
        assert self._opened.wait(10)


def held(check: Callable, threads: int = 1) -> None:
    """Run `check` with turns whose threads are all at work for another key, until it opens the gate."""

    async def main() -> None:
        turns, gate = Turns(threads, "test"), Gate()
        first = [asyncio.ensure_future(turns.run("first", gate)) for _ in range(threads)]
        await check(turns, gate)
        gate.open()
        await asyncio.gather(*first)
        turns.close()

    asyncio.run(main())


def pieces(turns: Turns, done: list[str], key: str, number: int, seconds: float = 0.002) -> list[asyncio.Future]:
    def work() -> None:
        done.append(key)
        time.sleep(seconds)

    return [asyncio.ensure_future(turns.run(key, work)) for _ in range(number)]


def test_a_key_that_sends_little_does_not_wait_for_one_that_sends_much():
    async def check(turns: Turns, gate: Gate) -> None:
        done: list[str] = []
        waiting = pieces(turns, done, "greedy", 20)
        await asyncio.sleep(0)
        waiting += pieces(turns, done, "modest", 2)
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(*waiting)
        assert [place for place, key in enumerate(done) if key == "modest"][-1] < 5

    held(check)


def test_what_counts_is_time_and_not_the_number_of_pieces():
    async def check(turns: Turns, gate: Gate) -> None:
        done: list[str] = []
        waiting = pieces(turns, done, "slow", 5, seconds=0.05) + pieces(turns, done, "quick", 5, seconds=0)
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(*waiting)
        assert done[:6].count("quick") == 5

    held(check)


def test_who_comes_later_does_not_get_all_the_time_that_others_have_had():
    async def check(turns: Turns, gate: Gate) -> None:
        done: list[str] = []
        old = [*pieces(turns, done, "old", 5, seconds=0.04), *pieces(turns, done, "old", 3, seconds=0.001)]
        await asyncio.sleep(0)
        gate.open()
        await old[4]
        new = pieces(turns, done, "new", 40, seconds=0.004)
        await asyncio.gather(*old, *new)
        assert done[-20:] == ["new"] * 20

    held(check)


def test_work_that_waits_is_dropped_when_its_client_has_left():
    async def check(turns: Turns, gate: Gate) -> None:
        done: list[str] = []
        left, stays = pieces(turns, done, "left", 1), pieces(turns, done, "stays", 1)
        await asyncio.sleep(0)
        left[0].cancel()
        await asyncio.gather(*left, return_exceptions=True)
        gate.open()
        await asyncio.gather(*stays)
        assert done == ["stays"]

    held(check)


def test_who_leaves_while_its_work_is_done_keeps_the_thread_until_it_is_through():
    async def main() -> None:
        turns, gate, done = Turns(1, "test"), Gate(), []
        task = asyncio.ensure_future(turns.run("a", gate))
        await asyncio.to_thread(gate.begun.wait)
        task.cancel()
        next_one = pieces(turns, done, "b", 1)
        await asyncio.gather(task, return_exceptions=True)
        assert done == []
        gate.open()
        await asyncio.gather(*next_one)
        assert done == ["b"]
        turns.close()

    asyncio.run(main())


def test_several_threads_work_at_once():
    async def check(turns: Turns, gate: Gate) -> None:
        assert await asyncio.wait_for(turns.run("b", lambda: 5), 5) == 5

    async def main() -> None:
        turns, gate = Turns(2, "test"), Gate()
        first = asyncio.ensure_future(turns.run("a", gate))
        await check(turns, gate)
        gate.open()
        await first
        turns.close()

    asyncio.run(main())


def test_what_the_work_raises_is_raised_where_it_was_asked_for():
    async def main() -> None:
        turns = Turns(1, "test")
        with pytest.raises(ZeroDivisionError):
            await turns.run("a", lambda: 1 // 0)
        assert await turns.run("a", lambda: 1) == 1
        turns.close()

    asyncio.run(main())


def test_of_several_threads_one_is_left_for_other_keys():
    async def main() -> None:
        turns, gate, done = Turns(2, "test"), Gate(), []
        first = asyncio.ensure_future(turns.run("a", gate))
        await asyncio.to_thread(gate.begun.wait)
        more = pieces(turns, done, "a", 1)
        assert await asyncio.wait_for(turns.run("b", lambda: 5), 5) == 5
        assert done == []
        gate.open()
        await asyncio.gather(first, *more)
        assert done == ["a"]
        turns.close()

    asyncio.run(main())
