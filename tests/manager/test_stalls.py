"""A runner hangs when one and the same step, or its silence, lasts longer than the limit; not when the machine paused."""

import pytest
from msgspec.structs import replace

from src.engines.base import EngineStats
from src.manager import stalls
from src.manager.stalls import Stalls
from src.protocol import RunnerStats

STATS = RunnerStats(engine=EngineStats(running=1, slots=1), steps=7, step_seconds=1, tokens_per_second=1)


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    monkeypatch.setattr(stalls, "time", clock := Clock())
    return clock


def look(watch: Stalls, clock, seconds: float, stats: RunnerStats | None) -> dict[int, str]:
    clock.now += seconds
    return watch.look({1: stats})


def test_a_step_that_is_too_old_at_two_looks_hangs(clock):
    watch = Stalls(10)
    assert look(watch, clock, 1, replace(STATS, step_age=10.5)) == {}
    assert look(watch, clock, 1, replace(STATS, step_age=11.5)) == {1: "a hang: no step for 10 s"}


def test_steps_that_follow_one_another_do_not_hang_however_slow(clock):
    watch = Stalls(10)
    assert look(watch, clock, 1, replace(STATS, step_age=12, steps=7)) == {}
    assert look(watch, clock, 1, replace(STATS, step_age=12, steps=8)) == {}
    assert look(watch, clock, 1, replace(STATS, step_age=0, steps=8)) == {}
    assert look(watch, clock, 1, replace(STATS, step_age=12, steps=8)) == {}


def test_silence_hangs_once_it_has_lasted(clock):
    watch = Stalls(6)
    assert look(watch, clock, 3, None) == {}
    assert look(watch, clock, 3, None) == {}
    assert look(watch, clock, 3, None) == {1: "a hang: no answer for 9 s"}


def test_an_answer_ends_a_silence(clock):
    watch = Stalls(6)
    look(watch, clock, 4, None)
    look(watch, clock, 4, STATS)
    assert look(watch, clock, 4, None) == {}


def test_after_a_pause_of_the_whole_machine_nobody_was_silent(clock):
    watch = Stalls(10)
    assert look(watch, clock, 3600, None) == {}
    assert look(watch, clock, 1, STATS) == {}


def test_with_a_limit_of_nothing_nothing_hangs(clock):
    watch = Stalls(0)
    for _ in range(3):
        assert look(watch, clock, 5, replace(STATS, step_age=1e6)) == {}
        assert look(watch, clock, 5, None) == {}
