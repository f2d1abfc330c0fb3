"""Who is turned away is told when to come again: by how fast places became free, and never later than SDKs will wait."""

import pytest

from src.protocol.lines import LONGEST_RETRY_AFTER
from src.runner import retry_after
from src.runner.retry_after import PlaceEstimate


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def monotonic(self) -> float:
            return self.now

    monkeypatch.setattr(retry_after, "time", clock := Clock())
    return clock


def test_it_is_the_pace_of_the_last_minute(clock):
    measured = PlaceEstimate()
    for _ in range(30):
        clock.now += 2
        measured.ended(1)
    assert measured.seconds_for(1) == 2
    assert measured.seconds_for(5) == 10
    clock.now += 30  # nothing since
    assert measured.seconds_for(1) == 4


def test_several_places_at_once_count_as_several(clock):
    measured = PlaceEstimate()
    clock.now += 60
    measured.ended(20)
    assert measured.seconds_for(1) == 3


def test_where_nothing_has_ended_it_is_as_long_as_that_has_lasted(clock):
    measured = PlaceEstimate()
    assert measured.seconds_for(1) == 1
    clock.now += 40
    assert measured.seconds_for(1) == 40


def test_it_is_never_longer_than_sdks_wait(clock):
    measured = PlaceEstimate()
    clock.now += 3600
    assert measured.seconds_for(100) == LONGEST_RETRY_AFTER
