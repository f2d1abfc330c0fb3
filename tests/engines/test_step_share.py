"""Where one key runs much and another little, the other waits for short steps only, and both get on."""

import math

import pytest

from src.engines.step_share import LEAST_JOBS, MEASURED_AGAIN, NEWCOMERS, SHORT, TRIES, Running, StepShare

HOG, GUEST = Running("hog", draws=True), Running("guest", draws=False)
PROMPT = Running("hog", draws=False)


def measured(*seconds: float) -> StepShare:
    """What a step of all twenty jobs took, one of half of them, of a third and so on."""
    share = StepShare()
    for parts, took in enumerate(seconds, 1):
        for _ in range(TRIES):
            share.observe(math.ceil(20 / parts), took)
    return share


def jobs(share: StepShare, running: list[Running], steps: int) -> list[list[int]]:
    return [list(share.choose(running).jobs) for _ in range(steps)]


def test_a_prompt_of_who_runs_less_comes_first_and_has_every_second_step():
    assert jobs(StepShare(), [HOG, HOG, GUEST, HOG], 4) == [[2], [0, 1, 3], [2], [0, 1, 3]]


def test_its_step_may_take_longer_than_the_others():
    share = StepShare()
    assert [share.choose([HOG, HOG, GUEST]).seconds for _ in range(2)] == [NEWCOMERS, SHORT]


def test_prompts_and_those_that_draw_take_turns():
    assert jobs(StepShare(), [HOG, PROMPT, HOG], 4) == [[1], [0, 2], [1], [0, 2]]


def test_nobody_is_left_out_between_newcomers():
    assert jobs(StepShare(), [HOG, HOG, PROMPT, GUEST], 4) == [[3], [2], [3], [0, 1]]


def test_prompts_alone_have_every_step():
    assert jobs(StepShare(), [PROMPT, PROMPT], 2) == [[0, 1], [0, 1]]


def test_parts_are_neighbours_and_each_has_its_turn():
    turns = jobs(measured(0.12, 0.06, 0.039), [HOG] * 20, 6)
    assert sorted(turns[0] + turns[1] + turns[2]) == list(range(20))
    assert sorted(map(len, turns[:3])) == [6, 7, 7]
    assert turns[:3] == turns[3:]


def test_nobody_is_left_out_while_their_number_changes():
    share = measured(0.12, 0.06, 0.039)
    served = [set(share.choose([HOG] * number).jobs) for number in [20, 6, 20, 6, 20]]
    assert set.union(*served) == set(range(20))


@pytest.mark.parametrize(
    ("share", "most"),
    [
        (measured(0.12), 10),  # halves are tried
        (measured(0.12, 0.06), 7),  # then thirds, for these were too long
        (measured(0.12, 0.06, 0.039), 7),
        (measured(0.12, 0.06, 0.041), 5),
        (measured(0.12, 0.06, 0.041, 0.031), 5),
        (measured(0.12, 0.06, 0.05, 0.046), 7),  # four of them take longer than they are worth
        (measured(0.12, 0.1), 20),  # the weights are what takes long
        (measured(0.2, 0.1, 0.07, 0.05), 4),
        (measured(0.04, 0.02), 20),  # short as it is
        (StepShare(), 20),
    ],
)
def test_a_step_has_as_many_parts_as_make_it_short(share, most):
    assert max(map(len, jobs(share, [HOG] * 20, 10))) == most


def test_a_step_that_is_long_with_its_fewest_jobs_has_these():
    share = StepShare()
    for _ in range(TRIES):
        for size in range(1, 21):
            share.observe(size, 0.1 * size)
    assert {len(turn) for turn in jobs(share, [HOG] * 20, 10)} == {LEAST_JOBS}


@pytest.mark.parametrize("number", [17, 19])
def test_their_number_may_change_a_little_without_a_try(number):
    share = measured(0.12, 0.06, 0.039)
    share.choose([HOG] * 20)
    assert len(share.choose([HOG] * number).jobs) == math.ceil(number / 3)


def test_a_size_is_tried_whole():
    share = measured(0.12, 0.06, 0.039)
    share.choose([HOG] * 20)
    assert len(share.choose([HOG] * 30).jobs) == 30, "in a round that began with parts"


def test_one_slow_step_says_nothing():
    share = measured(0.12)
    share.observe(10, 0.5)
    assert len(share.choose([HOG] * 20).jobs) == 10, "halves are tried on"


def test_what_was_measured_is_measured_again():
    share = measured(0.1, 0.09)
    for _ in range(MEASURED_AGAIN + TRIES):
        share.observe(20, 0.1)
    assert len(share.choose([HOG] * 20).jobs) == 10, "halves are tried once more"
