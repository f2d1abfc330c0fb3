"""Where one key runs much and another little, the other waits for short steps only, and both get on."""

import pytest

from src.engines.step_share import MEASURED_AGAIN, NEWCOMERS, SHORT, Running, StepShare

HOG, GUEST = Running("hog", draws=True), Running("guest", draws=False)
PROMPT = Running("hog", draws=False)


def measured(whole: float, half: float | None = None) -> StepShare:
    share = StepShare()
    share.observe(20, 20, whole)
    if half is not None:
        share.observe(10, 20, half)
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


def test_long_steps_are_halved_into_neighbours():
    assert jobs(measured(0.1, 0.05), [HOG] * 9, 3) == [[0, 1, 2, 3, 4], [5, 6, 7, 8], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("share", "running"),
    [
        (measured(0.05, 0.025), [HOG] * 20),  # short as it is
        (measured(0.1, 0.09), [HOG] * 20),  # the weights are what takes long
        (measured(0.1, 0.05), [HOG] * 4),
        (StepShare(), [HOG] * 20),
    ],
)
def test_steps_that_need_no_halving_stay_whole(share, running):
    assert jobs(share, running, 2) == [list(range(len(running)))] * 2


def test_what_was_measured_is_measured_again():
    share = measured(0.1, 0.09)
    for _ in range(MEASURED_AGAIN):
        share.observe(20, 20, 0.1)
    assert len(share.choose([HOG] * 20).jobs) == 10, "halves are tried once more"
