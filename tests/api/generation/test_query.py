"""A query over runners that die: none of its events is missing or comes twice, and it ends."""

import contextlib

import pytest

from src.api.generation.blame import GUILTY
from src.api.generation.query import EventCounter, RunnerQuery
from src.api.generation.resumable import FRUITLESS_TRIES, connect, returned
from src.errors import EngineCrashed, EngineUnavailable
from src.protocol import Embed, Embedded, Finished, TextPrompt
from tests.support.machine import Machine, says

FINISHED = Finished(prompt_tokens=1, completion_tokens=0, cached_tokens=0)
CRASH = "signal SIGSEGV"

EMBED = Embed(prompts=[TextPrompt(text=text) for text in "abc"])
VECTORS = [Embedded(vector=bytes([number])) for number in range(3)]


def query(machine: Machine) -> RunnerQuery:
    ready, request, generation = returned(connect(machine.caller(), "m", lambda ready: EMBED))
    return RunnerQuery(machine.caller(), ready, EventCounter(request), generation)


@pytest.mark.parametrize("cut", range(4))
def test_a_query_is_sent_again_whole_and_no_event_comes_twice(tmp_path, cut):
    events = [*VECTORS, FINISHED]
    with Machine(tmp_path, [says(*events[:cut]), says(*events)]) as machine, contextlib.closing(query(machine)) as answer:
        assert list(answer) == events
    assert machine.requests == [EMBED, EMBED]


def test_a_query_that_two_runners_died_of_has_crashed_the_engine(tmp_path):
    machine = Machine(tmp_path, [says()] * 4, [None, *[CRASH] * 3])
    with machine, contextlib.closing(query(machine)) as answer, pytest.raises(EngineCrashed, match=CRASH):
        list(answer)
    assert len(machine.requests) == GUILTY


def test_a_query_under_which_runners_were_killed_from_outside_has_not(tmp_path):
    runners = [*[says()] * 4, says(*VECTORS, FINISHED)]
    with Machine(tmp_path, runners, [None, *["signal SIGKILL"] * 4]) as machine, contextlib.closing(query(machine)) as answer:
        assert list(answer) == [*VECTORS, FINISHED]


def test_queries_that_all_get_nothing_are_given_up(tmp_path):
    runners = [says()] * (FRUITLESS_TRIES + 2)
    with Machine(tmp_path, runners) as machine, contextlib.closing(query(machine)) as answer, pytest.raises(EngineUnavailable):
        list(answer)
    assert len(machine.requests) == FRUITLESS_TRIES + 1
