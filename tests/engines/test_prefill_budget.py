"""The prefill budget keeps a step near its target, whatever the machine's speed."""

import pytest

from src.engines.prefill_budget import ALONE_TOKENS, FIRST_TOKENS, MIN_TOKENS, PrefillBudget, share_room


def learned(target: float, decode: float, token: float, doubling: float = 1e9) -> PrefillBudget:
    """After steps at positions up to 3,000, where a prompt token costs `token` seconds at 0 and twice as much at `doubling`."""
    budget = PrefillBudget(target, 512)
    for position in range(0, 3000, 100):
        budget.observe(8, 0, decode)
        budget.observe(8, 64, decode + 64 * token * (1 + position / doubling), position)
    return budget


def test_with_nobody_decoding_a_prompt_gets_the_whole_batch():
    assert PrefillBudget(0.2, 512).tokens(0) == 512


def test_a_long_prompt_alone_does_not_keep_who_comes_for_seconds():
    tokens = learned(0.25, 0.02, 0.005).tokens(0)
    assert 0.8 < tokens * 0.005 <= 1.0


def test_where_each_step_takes_long_whatever_it_computes_a_prompt_alone_gets_on():
    assert learned(0.25, 0.02, 0.5).tokens(0) == ALONE_TOKENS


@pytest.mark.parametrize("decoding", [0, 8])
def test_a_hurried_step_takes_what_it_may(decoding):
    tokens = learned(0.25, 0.02, 0.001).tokens(decoding, seconds=0.06)
    beside = 0.02 if decoding else 0.0
    assert 0.045 < beside + tokens * 0.001 <= 0.06


def test_before_anything_was_measured_the_chunk_is_small():
    assert PrefillBudget(0.2, 512).tokens(4) == FIRST_TOKENS


@pytest.mark.parametrize(("decode", "token"), [(0.05, 0.0034), (0.01, 0.0002), (0.001, 0.00001)])
def test_a_step_with_the_budget_takes_the_target_at_most(decode, token):
    tokens = learned(0.2, decode, token).tokens(8)
    assert decode + tokens * token <= 0.2
    assert tokens == 504 or decode + tokens * token > 0.2 * 0.8, "and not much less, where the batch has room"


@pytest.mark.parametrize("position", [0, 1000, 3000, 5000])
def test_a_step_with_the_budget_takes_the_target_at_most_where_tokens_cost_more_along_the_prompt(position):
    def seconds(tokens: int) -> float:
        return 0.02 + tokens * 0.0008 * (1 + (position + tokens / 2) / 400)

    tokens = learned(0.2, 0.02, 0.0008, doubling=400).tokens(8, position)
    assert 0.2 * 0.75 < seconds(tokens) <= 0.2


def test_the_first_chunk_of_a_long_prompt_is_careful():
    """Only short prompts were seen, so that nothing is known of how the cost grows."""
    budget = PrefillBudget(0.2, 512)
    for position in (20, 30, 25) * 5:
        budget.observe(8, 0, 0.02)
        budget.observe(8, 40, 0.02 + 40 * 0.0008, position)
    tokens = budget.tokens(8)
    assert 0.02 + tokens * 0.0008 * (1 + tokens / 2 / 300) <= 0.2


def test_a_prompt_gets_on_even_where_decoding_alone_exceeds_the_target():
    assert learned(0.2, 0.5, 0.01).tokens(8) == MIN_TOKENS


def test_a_first_step_that_took_many_times_as_long_is_soon_made_up_for():
    """As where a GPU compiles its kernels in it: it says nothing of those after it."""

    def tokens(*times: int) -> int:
        budget = PrefillBudget(0.2, 512)
        for one in times:
            budget.observe(8, 0, one * 0.05)
            budget.observe(8, 64, 0.05 + one * 64 * 0.001)
        return budget.tokens(8)

    assert tokens(50, 1, 1, 1) > 0.9 * tokens(1, 1, 1, 1)


def test_it_follows_when_the_machine_becomes_slower():
    budget = learned(0.2, 0.05, 0.001)
    before = budget.tokens(8)
    for _ in range(30):
        budget.observe(8, 64, 0.05 + 64 * 0.004)
    assert budget.tokens(8) < before / 3


@pytest.mark.parametrize(
    ("room", "prompts", "shares"),
    [
        (100, [30], [30]),
        (100, [4000], [100]),
        (100, [4000, 30], [70, 30]),
        (100, [30, 4000], [30, 70]),
        (100, [4000, 300, 40, 41], [49, 1, 40, 10]),
        (100, [40, 40, 40], [40, 40, 20]),
        (17, [2, 2], [2, 2]),
        (0, [5, 5], [1, 1]),
    ],
)
def test_the_oldest_prompt_gets_half_of_the_room_and_the_shortest_the_rest(room, prompts, shares):
    assert share_room(room, prompts) == shares
