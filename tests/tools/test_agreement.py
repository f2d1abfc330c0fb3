"""How agreement is counted."""

import pytest

from tools import agreement

pytestmark = pytest.mark.slow


def tokens(text: str, *, gap: float = 0.5) -> list[dict]:
    """One for each letter; the runner-up is a z, `gap` less likely."""

    def entry(letter: str, logprob: float) -> dict:
        return {"token": letter, "bytes": list(letter.encode()), "logprob": logprob}

    return [{**entry(letter, -0.1), "top_logprobs": [entry(letter, -0.1), entry("z", -0.1 - gap)]} for letter in text]


def test_equal_answers_agree_wholly():
    row = agreement.compare([tokens("abc"), tokens("de")], [tokens("abc"), tokens("de")])
    assert row == {"prompts": 2, "first": 1.0, "whole": 1.0, "prefix": 2.5, "gap": 0.0}


def test_what_comes_after_the_first_difference_does_not_count():
    row = agreement.compare([tokens("abcd")], [tokens("abzd")])
    assert (row["first"], row["whole"], row["prefix"]) == (1.0, 0.0, 2)


def test_the_gap_is_between_the_two_tokens_that_differ():
    assert agreement.compare([tokens("ab", gap=0.25)], [tokens("az")])["gap"] == pytest.approx(0.25)


def test_a_token_that_was_not_listed_counts_as_the_least_likely_that_was():
    assert agreement.compare([tokens("ab", gap=0.75)], [tokens("ax")])["gap"] == pytest.approx(0.75)


def test_an_answer_that_is_a_beginning_of_the_other_is_not_the_same():
    assert agreement.compare([tokens("abc")], [tokens("ab")])["whole"] == 0.0


def test_answers_that_begin_differently_share_nothing():
    row = agreement.compare([tokens("abc")], [tokens("xbc")])
    assert (row["first"], row["prefix"]) == (0.0, 0)
